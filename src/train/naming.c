/* Owns the differences between the names here and elsewhere. Constant; any thread. */
#include "train/naming.h"

#include <stdio.h>
#include <string.h>

bool naming_ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

bool naming_is_student(const char *name)
{
    static const char *const parts[] = {"laterals.", "upsample.", "fuse_", "downsample", "fc_b"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0)
            return true;
    return false;
}

bool naming_counter(const char *name, char *counter, size_t bytes)
{
    static const char suffix[] = ".running_mean";
    if (!naming_ends_with(name, suffix))
        return false;
    snprintf(counter, bytes, "%.*s%s", (int)(strlen(name) - strlen(suffix)), name, NAMING_COUNTER_SUFFIX);
    return true;
}

bool naming_is_counter(const char *name)
{
    return naming_ends_with(name, NAMING_COUNTER_SUFFIX) || strcmp(name, NAMING_UPDATES) == 0;
}

/* Owns the differences between the names here and elsewhere. Constant; any thread. */
#include "export/tensor_names.h"

#include <stdio.h>
#include <string.h>

bool tensor_names_ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

bool tensor_names_counter(const char *name, char *counter, size_t bytes)
{
    static const char suffix[] = ".running_mean";
    if (!tensor_names_ends_with(name, suffix))
        return false;
    snprintf(counter, bytes, "%.*s%s", (int)(strlen(name) - strlen(suffix)), name, TENSOR_NAMES_COUNTER_SUFFIX);
    return true;
}

bool tensor_names_is_counter(const char *name)
{
    return tensor_names_ends_with(name, TENSOR_NAMES_COUNTER_SUFFIX) || strcmp(name, TENSOR_NAMES_UPDATES) == 0;
}

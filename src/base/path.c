/* Owns nothing. Threads: one at a time, for the system's list of users. */
#include "base/path.h"

#include "base/error.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The home folder of this process's user: HOME, or else what the list of users has. */
static const char *own_home(void)
{
    const char *home = getenv("HOME");
    const struct passwd *user = home == NULL || home[0] == '\0' ? getpwuid(getuid()) : NULL;
    return user != NULL ? user->pw_dir : home;
}

static int home_of(const char *user, size_t length, const char **home)
{
    char name[64];
    *home = length == 0 ? own_home() : NULL;
    if (length > 0 && length < sizeof name) {
        memcpy(name, user, length);
        name[length] = '\0';
        const struct passwd *entry = getpwnam(name);
        *home = entry != NULL ? entry->pw_dir : NULL;
    }
    CHECK(length == 0 || *home != NULL, ERROR_SETTINGS, "'~%.*s': there is no such user; './~' is a file of that name",
          (int)(length < sizeof name ? length : sizeof name), user);
    CHECK(*home != NULL && (*home)[0] != '\0', ERROR_SETTINGS,
          "'~': the home folder is not known; set HOME or give the whole path");
    return 0;
}

int path_expand(const char *path, char *out, size_t bytes)
{
    const char *home = "", *rest = path;
    if (path[0] == '~') {
        rest = path + strcspn(path, "/");
        TRY(home_of(path + 1, (size_t)(rest - path) - 1, &home));
    }
    const int length = snprintf(out, bytes, "%s%s", home, rest);
    CHECK(length >= 0 && (size_t)length < bytes, ERROR_SETTINGS, "'%.80s' is too long; allowed are %zu bytes", path,
          bytes - 1);
    return 0;
}

/* Owns output.dir/stopped. Invariant: it is there between the orderly stop of a run and the next start in its folder.
 * Rank 0's. One thread. */
#include "train/stop_file.h"
#include "base/error.h"
#include "base/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = SETTING_TEXT_BYTES + 16 };

static void name_file(char path[PATH_BYTES], const char *dir)
{
    snprintf(path, PATH_BYTES, "%s/stopped", dir);
}

int stop_file_remove(const char *dir)
{
    char path[PATH_BYTES];
    name_file(path, dir);
    CHECK(unlink(path) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

int stop_file_write(const char *dir, const char *text)
{
    char path[PATH_BYTES];
    name_file(path, dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    bool written = fd >= 0 && dprintf(fd, "%s\n", text) > 0;
    int reason = errno;
    if (fd >= 0 && close(fd) != 0 && written) {
        written = false;
        reason = errno;
    }
    CHECK(written, ERROR_FILE, "%s: cannot be written: %s", path, strerror(reason));
    return 0;
}

/* Owns no state. The order fsync(file), rename, fsync(folder) is the guarantee: the new name never points at
 * data that is not on the disk yet. Any thread may call it. */
#include "io/atomic_file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *atomic_file_temp(const char *path)
{
    char *temp = NULL;
    if (asprintf(&temp, "%s.tmp.%ld", path, (long)getpid()) < 0) {
        error_set(ERROR_MEMORY, "no memory for the name of a temporary file");
        return NULL;
    }
    return temp;
}

static int sync_path(const char *path, int flags)
{
    int file = open(path, flags | O_CLOEXEC);
    if (file < 0)
        return error_set(ERROR_FILE, "%s: cannot open to make durable: %s", path, strerror(errno));
    int status = 0;
    /* Some network file systems cannot fsync a folder and say EINVAL; the rename is then as durable as they make it. */
    if (fsync(file) != 0 && !(errno == EINVAL && (flags & O_DIRECTORY)))
        status = error_set(ERROR_FILE, "%s: cannot make durable (fsync): %s", path, strerror(errno));
    close(file);
    return status;
}

static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return sync_path(".", O_RDONLY | O_DIRECTORY);
    char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    CHECK(folder, ERROR_MEMORY, "no memory for the name of a folder");
    int status = sync_path(folder, O_RDONLY | O_DIRECTORY);
    free(folder);
    return status;
}

int atomic_file_replace(const char *temp, const char *path)
{
    int status = sync_path(temp, O_RDWR);
    if (status == 0 && rename(temp, path) != 0)
        status = error_set(ERROR_FILE, "%s: cannot rename to %s: %s", temp, path, strerror(errno));
    if (status < 0) {
        unlink(temp);
        return status;
    }
    return sync_folder_of(path);
}

int make_folders(const char *path)
{
    char part[4096];
    CHECK(path[0] && strlen(path) < sizeof part, ERROR_FILE, "\"%.64s\": not the name of a folder", path);
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, ERROR_FILE, "%s: cannot make the folder: %s", part,
              strerror(errno));
        if (!slash)
            return 0;
        *slash = '/';
    }
}

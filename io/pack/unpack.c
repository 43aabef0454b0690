/* Owns nothing. Any thread: images are files of their own. */
#include "io/pack/unpack.h"

#include "base/atomic_file.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A name out of a file may be anything. */
static bool stays_inside(const char *name)
{
    if (name[0] == '/' || name[0] == '\0')
        return false;
    for (const char *at = name; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, "../", 3) == 0 || strcmp(at, "..") == 0)
            return false;
    }
    return true;
}

static int write_file(const char *path, const uint8_t *bytes, size_t count)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    CHECK(file >= 0, ERROR_FILE, "%s: cannot be made: %s", path, strerror(errno));
    size_t done = 0;
    while (done < count) {
        const ssize_t put = write(file, bytes + done, count - done);
        if (put < 0 && errno != EINTR)
            break;
        done += put > 0 ? (size_t)put : 0;
    }
    const int error = done < count ? errno : 0;
    const bool closed = close(file) == 0;
    CHECK(done == count && closed, ERROR_FILE, "%s: cannot be written: %s", path, strerror(error ? error : errno));
    return 0;
}

int unpack_image(void *folder, const visited_image *image)
{
    char name[SHARD_NAME_BYTES], path[PATH_MAX];
    TRY(shard_set_name(image->set, image->index, name));
    CHECK(stays_inside(name), ERROR_DATA, "image \"%s\": the name leads out of the folder", name);
    CHECK(snprintf(path, sizeof path, "%s/%s/%s", (const char *)folder, image->split ? "val" : "train", name) <
              PATH_MAX,
          ERROR_FILE, "%s: the path is too long", name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    TRY(make_folders(path));
    *slash = '/';
    return write_file(path, image->bytes, image->image->size);
}

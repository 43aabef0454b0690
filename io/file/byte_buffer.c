/* Owns nothing but the open file. Any thread, each with a buffer of its own. */
#include "io/file/byte_buffer.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MOST = 1 << 30 };

int byte_buffer_reserve(byte_buffer *buffer, size_t bytes)
{
    if (bytes <= buffer->room)
        return 0;
    uint8_t *grown = realloc(buffer->bytes, bytes);
    CHECK(grown, ERROR_MEMORY, "no memory for %zu bytes", bytes);
    buffer->bytes = grown;
    buffer->room = bytes;
    return 0;
}

static int read_open(const char *path, int file, byte_buffer *buffer)
{
    struct stat info;
    CHECK(fstat(file, &info) == 0, ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a file", path);
    CHECK(info.st_size <= FILE_MOST, ERROR_DATA, "%s: %lld bytes, expected at most %d", path, (long long)info.st_size,
          FILE_MOST);
    buffer->size = 0;
    TRY(byte_buffer_reserve(buffer, (size_t)info.st_size + 1));
    while (buffer->size < (size_t)info.st_size) {
        ssize_t got = read(file, buffer->bytes + buffer->size, (size_t)info.st_size - buffer->size);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got >= 0, ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
        CHECK(got > 0, ERROR_FILE, "%s: became shorter while it was read", path);
        buffer->size += (size_t)got;
    }
    return 0;
}

int byte_buffer_read_file(byte_buffer *buffer, const char *path)
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(file >= 0, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    int status = read_open(path, file, buffer);
    close(file);
    return status;
}

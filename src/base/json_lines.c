/* Owns an append-only file. Invariant: between json_end and json_begin the file ends with a newline, or is empty.
 * Threads: one at a time. */
#include "base/json_lines.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const json_lines *json, const char *what)
{
    return error_set(ERROR_FILE, "%s: cannot %s: %s", json->path, what, strerror(errno));
}

/* Bytes of the first `size` up to the end of the last whole line; negative when they cannot be read. */
static off_t whole_lines(int descriptor, off_t size)
{
    char bytes[4096];
    while (size > 0) {
        const size_t count = size < (off_t)sizeof bytes ? (size_t)size : sizeof bytes;
        if (pread(descriptor, bytes, count, size - (off_t)count) != (ssize_t)count)
            return -1;
        const char *end = memrchr(bytes, '\n', count);
        size -= (off_t)count;
        if (end != NULL)
            return size + (end - bytes) + 1;
    }
    return 0;
}

static int open_lines(json_lines *json, int descriptor)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return fail(json, "open");
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", json->path);
    const off_t whole = whole_lines(descriptor, info.st_size);
    if (whole < 0)
        return fail(json, "read");
    if (whole < info.st_size && ftruncate(descriptor, whole) != 0)
        return fail(json, "cut an unfinished line off");
    json->goes_on = whole > 0;
    json->file = fdopen(descriptor, "a");
    return json->file == NULL ? fail(json, "open") : 0;
}

int json_open(json_lines *json, const char *path)
{
    *json = (json_lines){.path = strdup(path)};
    CHECK(json->path != NULL, ERROR_MEMORY, "%s: out of memory", path);
    const int flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const int descriptor = open(path, flags, 0666);
    int status = descriptor < 0 ? fail(json, "open") : open_lines(json, descriptor);
    if (status < 0) {
        if (descriptor >= 0)
            close(descriptor);
        free(json->path);
        *json = (json_lines){0};
    }
    return status;
}

static void write_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0';) {
        const int length = text_utf8_length((const char *)c, NULL);
        if (length == 0)
            fputs("\\ufffd", file);
        else if (*c == '"' || *c == '\\')
            fprintf(file, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(file, "\\u%04x", *c);
        else
            fwrite(c, 1, (size_t)length, file);
        c += length > 0 ? length : 1;
    }
    fputc('"', file);
}

static void write_number(FILE *file, double value)
{
    char text[TEXT_DOUBLE_BYTES] = "null";
    if (isfinite(value))
        text_from_double(value, text);
    fputs(text, file);
}

static void write_key(json_lines *json, const char *key)
{
    if (!json->empty)
        fputc(',', json->file);
    json->empty = false;
    write_text(json->file, key);
    fputc(':', json->file);
}

void json_begin(json_lines *json)
{
    fputc('{', json->file);
    json->empty = true;
}

void json_number(json_lines *json, const char *key, double value)
{
    write_key(json, key);
    write_number(json->file, value);
}

void json_integer(json_lines *json, const char *key, int64_t value)
{
    write_key(json, key);
    fprintf(json->file, "%" PRId64, value);
}

void json_text(json_lines *json, const char *key, const char *value)
{
    write_key(json, key);
    write_text(json->file, value);
}

void json_numbers(json_lines *json, const char *key, const double *values, size_t count)
{
    write_key(json, key);
    fputc('[', json->file);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            fputc(',', json->file);
        write_number(json->file, values[i]);
    }
    fputc(']', json->file);
}

int json_end(json_lines *json)
{
    errno = EIO; /* for a write that failed earlier */
    fputs("}\n", json->file);
    return fflush(json->file) != 0 || ferror(json->file) ? fail(json, "write") : 0;
}

int json_close(json_lines *json)
{
    int status = 0;
    if (json->file != NULL && fclose(json->file) != 0)
        status = fail(json, "write");
    free(json->path);
    *json = (json_lines){0};
    return status;
}

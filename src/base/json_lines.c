/* Owns an append-only file. Invariant: between json_end and json_begin the file ends with a newline.
 * Threads: one at a time. */
#include "base/json_lines.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int fail(const json_lines *json, const char *what)
{
    return error_set(ERROR_FILE, "%s: cannot %s: %s", json->path, what, strerror(errno));
}

static int end_cut_line(json_lines *json)
{
    if (fseeko(json->file, 0, SEEK_END) != 0)
        return errno == ESPIPE ? 0 : fail(json, "seek");
    if (ftello(json->file) == 0)
        return 0;
    if (fseeko(json->file, -1, SEEK_END) != 0)
        return fail(json, "seek");
    const int last = fgetc(json->file);
    if (last == EOF || fseeko(json->file, 0, SEEK_END) != 0)
        return fail(json, "read");
    return last == '\n' || fputc('\n', json->file) != EOF ? 0 : fail(json, "write");
}

int json_open(json_lines *json, const char *path)
{
    *json = (json_lines){.path = strdup(path)};
    CHECK(json->path != NULL, ERROR_MEMORY, "%s: out of memory", path);
    json->file = fopen(path, "a+");
    int status = json->file == NULL ? fail(json, "open") : end_cut_line(json);
    if (status < 0) {
        if (json->file != NULL)
            fclose(json->file);
        free(json->path);
        *json = (json_lines){0};
    }
    return status;
}

/* Length of the UTF-8 character at `text`, 0 when it is not one. */
static int utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least; /* a shorter form exists below it */
    } form[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (int length = 1; length <= 4; length++) {
        const unsigned char mask = form[length - 1].mask;
        if ((text[0] & mask) != form[length - 1].lead)
            continue;
        uint32_t code = text[0] & (unsigned char)~mask;
        for (int i = 1; i < length; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[i] & 0x3f);
        }
        const bool surrogate = code >= 0xd800 && code <= 0xdfff;
        return code >= form[length - 1].least && code <= 0x10ffff && !surrogate ? length : 0;
    }
    return 0;
}

static void write_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0';) {
        const int length = utf8_length(c);
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

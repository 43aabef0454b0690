/* Owns the comparison of decoded images with a table, see reference_images.h. Invariant: a row that differs is printed
 * and counted, and the others are still compared. One thread. */
#include "tools/reference_images.h"
#include "base/error.h"
#include "io/image/decode.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

enum { LINE_BYTES = 8192, PATH_BYTES = 4096, KIND_BYTES = 16, COLUMNS = 9 };

typedef struct {
    char path[PATH_BYTES], kind[KIND_BYTES];
    image_region at; /* of the table: x, y, w, h */
    int32_t out_height, out_width;
    uint32_t checksum;
} table_row;

typedef struct {
    const char *root;
    FILE *out;
    image_decoder *decoder;
    int rows, matched;
} comparison;

/* The bytes of a file, to be freed. */
static int read_file(const char *path, uint8_t **bytes, size_t *size)
{
    long length = -1;
    FILE *file = fopen(path, "rb");
    CHECK(file, ERROR_FILE, "%s: cannot be opened", path);
    if (fseek(file, 0, SEEK_END) == 0)
        length = ftell(file);
    rewind(file);
    *size = length < 0 ? 0 : (size_t)length;
    *bytes = malloc(*size + 1);
    const size_t got = *bytes ? fread(*bytes, 1, *size, file) : 0;
    fclose(file);
    CHECK(*bytes, ERROR_MEMORY, "%s: no memory for %zu bytes", path, *size);
    if (length >= 0 && got == *size)
        return 0;
    free(*bytes);
    return error_set(ERROR_FILE, "%s: cannot be read", path);
}

static bool is_kind(const table_row *row, const char *kind)
{
    return strcmp(row->kind, kind) == 0;
}

static int parse_numbers(const char *text, table_row *row)
{
    image_region *at = &row->at;
    CHECK(sscanf(text, "%" SCNd32 ",%" SCNd32 ",%" SCNd32 ",%" SCNd32 ",%" SCNd32 ",%" SCNd32 ",", &at->left, &at->top,
                 &at->width, &at->height, &row->out_width, &row->out_height) == 6,
          ERROR_DATA, "\"%s\": expected x,y,w,h,out_w,out_h as whole numbers", text);
    if (is_kind(row, "error"))
        return 0;
    const char *last = strrchr(text, ',') + 1;
    CHECK(strlen(last) == 8 && sscanf(last, "%8" SCNx32, &row->checksum) == 1, ERROR_DATA,
          "\"%s\": expected eight hexadecimal digits", last);
    return 0;
}

static int parse_row(const char *line, table_row *row)
{
    int used = 0;
    CHECK(sscanf(line, "%4095[^,],%15[^,],%n", row->path, row->kind, &used) == 2 && used > 0, ERROR_DATA,
          "expected %d columns, path,kind,x,y,w,h,out_w,out_h,crc32", COLUMNS);
    CHECK(is_kind(row, "decode") || is_kind(row, "crop") || is_kind(row, "eval") || is_kind(row, "error"), ERROR_DATA,
          "kind \"%s\": expected decode, crop, eval or error", row->kind);
    return parse_numbers(line + used, row);
}

static image_view view_of(const table_row *row, const image_info *info)
{
    image_view view = image_whole(info);
    if (!is_kind(row, "crop") && !is_kind(row, "eval"))
        return view;
    view.height = row->out_height;
    view.width = row->out_width;
    view.window = (image_region){.height = row->out_height, .width = row->out_width};
    if (is_kind(row, "crop"))
        view.region = row->at;
    else
        view.window = row->at;
    return view;
}

static int decode_view(image_decoder *decoder, const uint8_t *bytes, size_t size, const image_view *view,
                       uint32_t *checksum)
{
    const size_t row_bytes = (size_t)view->window.width * IMAGE_CHANNELS;
    CHECK(view->window.height > 0 && view->window.width > 0, ERROR_DATA, "no pixels are asked for");
    uint8_t *pixels = calloc((size_t)view->window.height, row_bytes);
    CHECK(pixels, ERROR_MEMORY, "no memory for %dx%d pixels", view->window.width, view->window.height);
    int status = image_decode(decoder, bytes, size, view, pixels);
    uLong sum = crc32(0, NULL, 0);
    for (int32_t row = 0; row < view->window.height && status == 0; row++)
        sum = crc32(sum, pixels + (size_t)row * row_bytes, (uInt)row_bytes);
    *checksum = (uint32_t)sum;
    free(pixels);
    return status;
}

static int decode_row(const comparison *c, const table_row *row, uint32_t *checksum)
{
    char path[2 * PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t size = 0;
    image_info info;
    snprintf(path, sizeof path, "%s/%s", c->root, row->path);
    TRY(read_file(path, &bytes, &size));
    int status = image_probe(c->decoder, bytes, size, &info);
    if (status == 0) {
        const image_view view = view_of(row, &info);
        status = decode_view(c->decoder, bytes, size, &view, checksum);
    }
    free(bytes);
    return status;
}

/* Prints what is wrong with a row, if something is. A refusal is a result; only a lack of memory or files ends it. */
static int compare_row(comparison *c, const table_row *row)
{
    uint32_t checksum = 0;
    const bool refuse = is_kind(row, "error");
    int status = decode_row(c, row, &checksum);
    if (status == ERROR_FILE || status == ERROR_MEMORY)
        return status;
    const bool matches = refuse ? status == ERROR_DATA : status == 0 && checksum == row->checksum;
    c->rows++;
    c->matched += matches;
    if (status < 0)
        fprintf(c->out, "%-8s %s %s: %s\n", refuse ? "refused" : "DIFFERS", row->path, row->kind, error_message());
    else if (!matches)
        fprintf(c->out, "%-8s %s %s %dx%d at (%d, %d): %08" PRIx32 " instead of %s%08" PRIx32 "\n", "DIFFERS",
                row->path, row->kind, row->at.width, row->at.height, row->at.left, row->at.top, checksum,
                refuse ? "a refusal, " : "", row->checksum);
    return 0;
}

static int compare_lines(comparison *c, FILE *file)
{
    char line[LINE_BYTES];
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        table_row row = {.checksum = 0};
        line[strcspn(line, "\r\n")] = '\0';
        if (number == 1)
            CHECK(strncmp(line, "path,kind,", 10) == 0, ERROR_DATA,
                  "line 1: expected path,kind,x,y,w,h,out_w,out_h,crc32");
        else if (parse_row(line, &row) < 0)
            return error_prefix(ERROR_DATA, "line %d", number);
        else
            TRY(compare_row(c, &row));
    }
    CHECK(!ferror(file), ERROR_FILE, "cannot be read");
    CHECK(c->rows > 0, ERROR_DATA, "no rows");
    return 0;
}

int compare_images(const char *table, const char *root, FILE *out)
{
    comparison c = {.root = root, .out = out};
    FILE *file = fopen(table, "r");
    CHECK(file, ERROR_FILE, "%s: cannot be opened", table);
    int status = image_decoder_open(&c.decoder);
    if (status == 0)
        status = compare_lines(&c, file);
    image_decoder_close(&c.decoder);
    fclose(file);
    if (status < 0)
        return error_prefix(status, "%s", table);
    fprintf(out, "%d/%d rows match (%s)\n", c.matched, c.rows, image_isa());
    CHECK(c.matched == c.rows, ERROR_MISMATCH, "%s: %d of %d rows differ", table, c.rows - c.matched, c.rows);
    return 0;
}

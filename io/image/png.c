/* Owns the decoding of PNG: libpng's objects, made anew for each image, and its errors. Invariant: a long jump goes
 * from `fail` to `guarded` and nowhere else, and nothing in between holds memory that the reader does not know. One
 * thread a reader.
 *
 * All kinds of PNG become RGB: grey is repeated, a palette looked up, transparency left out. Of 16 bits a channel the
 * upper 8 are kept; Pillow does so for colour, and for grey takes 255 for whatever is above. */
#include "base/error.h"
#include "formats.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

enum { MOST_SIDE = UINT16_MAX, MOST_CHUNK = 1 << 24, END_BYTES = 12 };

struct png_reader {
    png_structp library;
    png_infop header;
    const uint8_t *next, *end;
    jmp_buf failed;
    int status;
    bool has_end; /* the last bytes are the chunk of an image's end */
    resampler *to;
    uint8_t *held; /* all rows of an interlaced image */
    uint8_t *rows[RESAMPLE_ROWS];
};

static _Noreturn void fail(png_reader *reader, int status)
{
    reader->status = status;
    longjmp(reader->failed, 1);
}

static _Noreturn void on_error(png_structp library, png_const_charp text)
{
    fail(png_get_error_ptr(library), error_set(ERROR_DATA, "PNG: %s", text));
}

static void on_warning(png_structp library, png_const_charp text)
{
    (void)library;
    (void)text;
}

static void on_read(png_structp library, png_bytep to, size_t count)
{
    png_reader *reader = png_get_io_ptr(library);
    if (count > (size_t)(reader->end - reader->next))
        fail(reader, error_set(ERROR_DATA, "PNG: the file ends too early"));
    memcpy(to, reader->next, count);
    reader->next += count;
}

static int guarded(png_reader *reader, void (*work)(png_reader *reader))
{
    reader->status = 0;
    if (setjmp(reader->failed) == 0)
        work(reader);
    return reader->status;
}

int png_reader_open(png_reader **reader)
{
    *reader = calloc(1, sizeof **reader);
    CHECK(*reader, ERROR_MEMORY, "no memory for a PNG reader");
    return 0;
}

static void forget(png_reader *reader)
{
    png_destroy_read_struct(&reader->library, &reader->header, NULL);
    free(reader->held);
    reader->held = NULL;
}

void png_reader_close(png_reader **reader)
{
    if (*reader)
        forget(*reader);
    free(*reader);
    *reader = NULL;
}

static void read_header(png_reader *reader)
{
    reader->library = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader, on_error, on_warning);
    reader->header = reader->library ? png_create_info_struct(reader->library) : NULL;
    if (!reader->header)
        fail(reader, error_set(ERROR_MEMORY, "no memory to read a PNG"));
    png_set_read_fn(reader->library, reader, on_read);
    png_set_user_limits(reader->library, MOST_SIDE, MOST_SIDE);
    png_set_chunk_malloc_max(reader->library, MOST_CHUNK);
    png_read_info(reader->library, reader->header);
}

static bool ends_well(const uint8_t *bytes, size_t size)
{
    static const uint8_t end[END_BYTES] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};
    return size >= END_BYTES && memcmp(bytes + size - END_BYTES, end, END_BYTES) == 0;
}

static int check_held(const image_info *info)
{
    const int64_t bytes = (int64_t)info->height * info->width * RESAMPLE_PIXEL;
    CHECK(!info->progressive || bytes <= IMAGE_MOST_HELD, ERROR_DATA,
          "PNG: %dx%d interlaced pixels would take %.1f GB of memory; at most %.1f are allowed", info->width,
          info->height, (double)bytes / 1e9, (double)IMAGE_MOST_HELD / 1e9);
    return 0;
}

int png_reader_start(png_reader *reader, const uint8_t *bytes, size_t size, image_info *info)
{
    forget(reader);
    reader->next = bytes;
    reader->end = bytes + size;
    reader->has_end = ends_well(bytes, size);
    TRY(guarded(reader, read_header));
    const png_structp library = reader->library;
    const bool is_palette = png_get_color_type(library, reader->header) == PNG_COLOR_TYPE_PALETTE;
    *info = (image_info){.format = IMAGE_PNG,
                         .height = (int32_t)png_get_image_height(library, reader->header),
                         .width = (int32_t)png_get_image_width(library, reader->header),
                         .channels = is_palette ? IMAGE_CHANNELS : png_get_channels(library, reader->header),
                         .progressive = png_get_interlace_type(library, reader->header) != PNG_INTERLACE_NONE};
    TRY(image_check_size(info));
    return check_held(info);
}

/* Whatever it is becomes RGB and a byte. */
static void set_transformations(png_structp library)
{
    png_set_strip_16(library);
    png_set_palette_to_rgb(library);
    png_set_expand_gray_1_2_4_to_8(library);
    png_set_gray_to_rgb(library);
    png_set_strip_alpha(library);
    png_set_filler(library, UINT8_MAX, PNG_FILLER_AFTER);
}

static void read_all(png_reader *reader, int32_t height, size_t row_bytes)
{
    const int passes = png_set_interlace_handling(reader->library);
    reader->held = malloc((size_t)height * row_bytes);
    if (!reader->held)
        fail(reader, error_set(ERROR_MEMORY, "no memory for the %d rows of an interlaced PNG", height));
    png_start_read_image(reader->library);
    for (int pass = 0; pass < passes; pass++)
        for (int32_t row = 0; row < height; row++)
            png_read_row(reader->library, reader->held + (size_t)row * row_bytes, NULL);
}

static void next_row(png_reader *reader, int32_t row, size_t row_bytes, uint8_t *to)
{
    if (reader->held)
        memcpy(to, reader->held + (size_t)row * row_bytes, row_bytes);
    else
        png_read_row(reader->library, to, NULL);
}

static void decode(png_reader *reader)
{
    resampler *to = reader->to;
    const image_region *needed = &to->needed;
    const int32_t height = (int32_t)png_get_image_height(reader->library, reader->header);
    const int32_t width = (int32_t)png_get_image_width(reader->library, reader->header);
    const size_t row_bytes = (size_t)width * RESAMPLE_PIXEL;
    set_transformations(reader->library);
    if (resampler_reserve(to, width, reader->rows) < 0)
        fail(reader, ERROR_MEMORY);
    if (png_get_interlace_type(reader->library, reader->header) != PNG_INTERLACE_NONE)
        read_all(reader, height, row_bytes);
    int32_t row = 0;
    while (row < needed->top)
        next_row(reader, row++, row_bytes, reader->rows[0]);
    for (int32_t end = needed->top + needed->height; row < end;) {
        int32_t count = 0;
        while (count < RESAMPLE_ROWS && row < end)
            next_row(reader, row++, row_bytes, reader->rows[count++]);
        resampler_push(to, count, needed->left);
    }
    while (row < height && !reader->has_end)
        next_row(reader, row++, row_bytes, reader->rows[0]);
}

int png_reader_rows(png_reader *reader, resampler *r)
{
    reader->to = r;
    int status = guarded(reader, decode);
    forget(reader);
    return status;
}

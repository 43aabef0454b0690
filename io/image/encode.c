/* Owns the encoding of JPEG and PNG. Invariant: a long jump goes from a library's error to the function that began;
 * that one frees what there is. Stateless; any thread. */
#include "encode.h"
#include "base/error.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

enum { FULL_COLOUR_QUALITY = 90, FIRST_ROOM = 1 << 16, MOST_PNG_SIDE = UINT16_MAX };

typedef struct {
    const uint8_t *pixels;
    int32_t height, width;
} picture;

static uint8_t *row_of(const picture *p, int32_t row)
{
    return (uint8_t *)(uintptr_t)p->pixels + (size_t)row * (size_t)p->width * IMAGE_CHANNELS;
}

static int check_sides(const picture *p, long most, const char *format)
{
    CHECK(p->height > 0 && p->width > 0 && p->height <= most && p->width <= most, ERROR_DATA,
          "%dx%d pixels as %s: expected sides of 1 to %ld", p->width, p->height, format, most);
    return 0;
}

/* What has been written. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} output;

static bool output_grow(output *out, size_t room)
{
    uint8_t *bytes = realloc(out->bytes, room);
    if (bytes) {
        out->bytes = bytes;
        out->room = room;
    }
    return bytes != NULL;
}

static int output_finish(output *out, int status, uint8_t **bytes, size_t *size)
{
    if (status < 0) {
        free(out->bytes);
        *out = (output){0};
    }
    *bytes = out->bytes;
    *size = out->size;
    return status;
}

typedef struct {
    struct jpeg_compress_struct library; /* first, so that a pointer to it is one to the encoder */
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr destination;
    jmp_buf failed;
    output out;
    int status;
} jpeg_encoder;

static _Noreturn void on_jpeg_error(j_common_ptr library)
{
    char text[JMSG_LENGTH_MAX];
    jpeg_encoder *encoder = (jpeg_encoder *)(void *)library;
    library->err->format_message(library, text);
    encoder->status = error_set(ERROR_MEMORY, "encoding a JPEG: %s", text);
    longjmp(encoder->failed, 1);
}

static void on_jpeg_output(j_common_ptr library)
{
    (void)library;
}

/* Of libjpeg's destination: the rest of the room is its own. */
static void offer_room(jpeg_encoder *encoder)
{
    encoder->destination.next_output_byte = encoder->out.bytes + encoder->out.size;
    encoder->destination.free_in_buffer = encoder->out.room - encoder->out.size;
}

static void on_jpeg_begin(j_compress_ptr library)
{
    jpeg_encoder *encoder = (jpeg_encoder *)(void *)library;
    if (!output_grow(&encoder->out, FIRST_ROOM))
        ERREXIT1(library, JERR_OUT_OF_MEMORY, 0);
    offer_room(encoder);
}

static boolean on_jpeg_full(j_compress_ptr library)
{
    jpeg_encoder *encoder = (jpeg_encoder *)(void *)library;
    encoder->out.size = encoder->out.room;
    if (!output_grow(&encoder->out, 2 * encoder->out.room))
        ERREXIT1(library, JERR_OUT_OF_MEMORY, 0);
    offer_room(encoder);
    return TRUE;
}

static void on_jpeg_end(j_compress_ptr library)
{
    jpeg_encoder *encoder = (jpeg_encoder *)(void *)library;
    encoder->out.size = encoder->out.room - encoder->destination.free_in_buffer;
}

static void set_jpeg_parameters(struct jpeg_compress_struct *library, const picture *p, int quality)
{
    library->image_width = (JDIMENSION)p->width;
    library->image_height = (JDIMENSION)p->height;
    library->input_components = IMAGE_CHANNELS;
    library->in_color_space = JCS_RGB;
    jpeg_set_defaults(library);
    jpeg_set_quality(library, quality, TRUE);
    library->optimize_coding = TRUE;
    if (quality >= FULL_COLOUR_QUALITY)
        library->comp_info[0].h_samp_factor = library->comp_info[0].v_samp_factor = 1;
}

static void write_jpeg(jpeg_encoder *encoder, const picture *p, int quality)
{
    struct jpeg_compress_struct *library = &encoder->library;
    jpeg_create_compress(library);
    library->dest = &encoder->destination;
    set_jpeg_parameters(library, p, quality);
    jpeg_start_compress(library, TRUE);
    while (library->next_scanline < library->image_height) {
        JSAMPROW row = row_of(p, (int32_t)library->next_scanline);
        jpeg_write_scanlines(library, &row, 1);
    }
    jpeg_finish_compress(library);
}

int image_encode_jpeg(const uint8_t *pixels, int32_t height, int32_t width, int quality, uint8_t **bytes, size_t *size)
{
    const picture p = {.pixels = pixels, .height = height, .width = width};
    *bytes = NULL;
    TRY(check_sides(&p, JPEG_MAX_DIMENSION, "a JPEG"));
    jpeg_encoder *encoder = calloc(1, sizeof *encoder);
    CHECK(encoder, ERROR_MEMORY, "no memory to encode a JPEG");
    encoder->library.err = jpeg_std_error(&encoder->errors);
    encoder->errors.error_exit = on_jpeg_error;
    encoder->errors.output_message = on_jpeg_output;
    encoder->destination.init_destination = on_jpeg_begin;
    encoder->destination.empty_output_buffer = on_jpeg_full;
    encoder->destination.term_destination = on_jpeg_end;
    if (setjmp(encoder->failed) == 0)
        write_jpeg(encoder, &p, quality);
    jpeg_destroy_compress(&encoder->library);
    int status = output_finish(&encoder->out, encoder->status, bytes, size);
    free(encoder);
    return status;
}

typedef struct {
    png_structp library;
    png_infop header;
    jmp_buf failed;
    output out;
    int status;
} png_encoder;

static _Noreturn void on_png_error(png_structp library, png_const_charp text)
{
    png_encoder *encoder = png_get_error_ptr(library);
    encoder->status = error_set(ERROR_MEMORY, "encoding a PNG: %s", text);
    longjmp(encoder->failed, 1);
}

static void on_png_warning(png_structp library, png_const_charp text)
{
    (void)library;
    (void)text;
}

static void on_png_write(png_structp library, png_bytep bytes, size_t count)
{
    output *out = &((png_encoder *)png_get_io_ptr(library))->out;
    size_t room = out->room ? out->room : FIRST_ROOM;
    while (room - out->size < count)
        room *= 2;
    if (room > out->room && !output_grow(out, room))
        png_error(library, "out of memory");
    memcpy(out->bytes + out->size, bytes, count);
    out->size += count;
}

static void on_png_flush(png_structp library)
{
    (void)library;
}

static void write_png(png_encoder *encoder, const picture *p)
{
    encoder->library = png_create_write_struct(PNG_LIBPNG_VER_STRING, encoder, on_png_error, on_png_warning);
    encoder->header = encoder->library ? png_create_info_struct(encoder->library) : NULL;
    if (!encoder->header) {
        encoder->status = error_set(ERROR_MEMORY, "no memory to encode a PNG");
        return;
    }
    png_set_write_fn(encoder->library, encoder, on_png_write, on_png_flush);
    png_set_IHDR(encoder->library, encoder->header, (png_uint_32)p->width, (png_uint_32)p->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(encoder->library, encoder->header);
    for (int32_t row = 0; row < p->height; row++)
        png_write_row(encoder->library, row_of(p, row));
    png_write_end(encoder->library, NULL);
}

int image_encode_png(const uint8_t *pixels, int32_t height, int32_t width, uint8_t **bytes, size_t *size)
{
    const picture p = {.pixels = pixels, .height = height, .width = width};
    *bytes = NULL;
    TRY(check_sides(&p, MOST_PNG_SIDE, "a PNG"));
    png_encoder *encoder = calloc(1, sizeof *encoder);
    CHECK(encoder, ERROR_MEMORY, "no memory to encode a PNG");
    if (setjmp(encoder->failed) == 0)
        write_png(encoder, &p);
    png_destroy_write_struct(&encoder->library, &encoder->header);
    int status = output_finish(&encoder->out, encoder->status, bytes, size);
    free(encoder);
    return status;
}

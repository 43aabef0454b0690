#include "image_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jpeglib.h>

int32_t case_random(uint32_t *state, int32_t low, int32_t high)
{
    *state = *state * 1664525u + 1013904223u;
    return low + (int32_t)((uint64_t)(*state >> 8) * (uint64_t)(high - low + 1) >> 24);
}

static int32_t limited(int32_t value)
{
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

uint8_t *case_picture(int32_t height, int32_t width, int channels, uint32_t seed)
{
    uint8_t *pixels = malloc((size_t)height * (size_t)width * (size_t)channels), *to = pixels;
    assert_non_null(pixels);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++)
            for (int c = 0; c < channels; c++) {
                const double wave = 90 * sin((0.11 + 0.05 * c) * x + 0.07 * y + seed);
                const int32_t edge = (x / 9 + y / 13 + c) % 3 == 0 ? 60 : 0;
                *to++ = (uint8_t)limited(100 + (int32_t)wave + edge + case_random(&seed, -30, 30));
            }
    return pixels;
}

static void set_kind(struct jpeg_compress_struct *library, const jpeg_kind *kind)
{
    library->input_components = kind->channels;
    library->in_color_space = kind->channels == 1 ? JCS_GRAYSCALE : kind->channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(library);
    if (kind->channels == 4)
        jpeg_set_colorspace(library, JCS_YCCK);
    jpeg_set_quality(library, kind->quality, TRUE);
    library->comp_info[0].h_samp_factor = kind->horizontal;
    library->comp_info[0].v_samp_factor = kind->vertical;
    library->restart_interval = (unsigned)kind->restart;
    if (kind->progressive)
        jpeg_simple_progression(library);
}

uint8_t *case_jpeg(const jpeg_kind *kind, const uint8_t *pixels, int32_t height, int32_t width, size_t *size)
{
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct library = {.err = jpeg_std_error(&errors)};
    jpeg_create_compress(&library);
    jpeg_mem_dest(&library, &bytes, &count);
    library.image_height = (JDIMENSION)height;
    library.image_width = (JDIMENSION)width;
    set_kind(&library, kind);
    jpeg_start_compress(&library, TRUE);
    while (library.next_scanline < library.image_height) {
        const size_t at = (size_t)library.next_scanline * (size_t)width * (size_t)kind->channels;
        JSAMPROW row = (JSAMPROW)(uintptr_t)pixels + at;
        jpeg_write_scanlines(&library, &row, 1);
    }
    jpeg_finish_compress(&library);
    jpeg_destroy_compress(&library);
    *size = count;
    return bytes;
}

uint8_t *case_whole(const uint8_t *bytes, size_t size, int32_t *height, int32_t *width)
{
    struct jpeg_error_mgr errors;
    struct jpeg_decompress_struct library = {.err = jpeg_std_error(&errors)};
    jpeg_create_decompress(&library);
    jpeg_mem_src(&library, bytes, size);
    jpeg_read_header(&library, TRUE);
    library.out_color_space = JCS_RGB;
    jpeg_start_decompress(&library);
    *height = (int32_t)library.output_height;
    *width = (int32_t)library.output_width;
    const size_t row_bytes = (size_t)*width * IMAGE_CHANNELS;
    uint8_t *pixels = malloc((size_t)*height * row_bytes);
    assert_non_null(pixels);
    while (library.output_scanline < library.output_height) {
        JSAMPROW row = pixels + (size_t)library.output_scanline * row_bytes;
        jpeg_read_scanlines(&library, &row, 1);
    }
    jpeg_finish_decompress(&library);
    jpeg_destroy_decompress(&library);
    return pixels;
}

/* Where the inputs of one axis lie in memory. */
typedef struct {
    const uint8_t *from;
    size_t stride;
    int32_t size, scaled;
} line;

/* Output `i` of a line of single bytes. */
static uint8_t scaled_byte(const line *l, int32_t i)
{
    const double scale = (double)l->size / l->scaled, reach = scale < 1 ? 1 : scale, center = (i + 0.5) * scale;
    int32_t first = (int32_t)(center - reach + 0.5), end = (int32_t)(center + reach + 0.5);
    if (l->size == l->scaled)
        return l->from[(size_t)i * l->stride];
    first = first < 0 ? 0 : first;
    end = end > l->size ? l->size : end;
    double total = 0;
    for (int32_t x = first; x < end; x++)
        total += fmax(0, 1 - fabs((x - center + 0.5) * (1 / reach)));
    int64_t sum = 1 << 21;
    for (int32_t x = first; x < end; x++) {
        const double weight = fmax(0, 1 - fabs((x - center + 0.5) * (1 / reach))) / total;
        sum += (int64_t)(weight * (1 << 22) + 0.5) * l->from[(size_t)x * l->stride];
    }
    return (uint8_t)limited((int32_t)(sum >> 22));
}

uint8_t *case_view(const uint8_t *pixels, int32_t width, const image_view *view)
{
    const image_region *from = &view->region, *window = &view->window;
    const size_t middle_bytes = (size_t)window->width * IMAGE_CHANNELS;
    uint8_t *middle = malloc((size_t)from->height * middle_bytes), *out = malloc((size_t)window->height * middle_bytes);
    assert_true(middle && out);
    for (int32_t y = 0; y < from->height; y++)
        for (size_t i = 0; i < middle_bytes; i++) {
            const size_t row = (size_t)(from->top + y) * (size_t)width, c = i % IMAGE_CHANNELS;
            const line l = {.from = pixels + (row + (size_t)from->left) * IMAGE_CHANNELS + c,
                            .stride = IMAGE_CHANNELS,
                            .size = from->width,
                            .scaled = view->width};
            middle[(size_t)y * middle_bytes + i] = scaled_byte(&l, window->left + (int32_t)(i / IMAGE_CHANNELS));
        }
    for (size_t i = 0; i < (size_t)window->height * middle_bytes; i++) {
        const line l = {
            .from = middle + i % middle_bytes, .stride = middle_bytes, .size = from->height, .scaled = view->height};
        out[i] = scaled_byte(&l, window->top + (int32_t)(i / middle_bytes));
    }
    free(middle);
    return out;
}

static image_region random_region(int32_t height, int32_t width, uint32_t *state)
{
    image_region r = {.height = case_random(state, 1, height), .width = case_random(state, 1, width)};
    r.top = case_random(state, 0, height - r.height);
    r.left = case_random(state, 0, width - r.width);
    return r;
}

/* Of four views one keeps the height and one the width. */
image_view case_random_view(int32_t height, int32_t width, int32_t most, uint32_t *state)
{
    image_view view = {.region = random_region(height, width, state)};
    view.height = case_random(state, 0, 3) ? case_random(state, 1, most) : view.region.height;
    view.width = case_random(state, 0, 3) ? case_random(state, 1, most) : view.region.width;
    view.window = random_region(view.height, view.width, state);
    return view;
}

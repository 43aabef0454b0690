/* Owns the decoder: the formats' readers, the resampler, and which instruction set it takes. Invariant: a view is
 * checked against the image before anything is decoded. One thread a decoder; the choice of an instruction set is one
 * for the process and made before the threads. */
#include "decode.h"
#include "base/error.h"
#include "formats.h"
#include "resample.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct image_decoder {
    jpeg_reader *jpeg;
    png_reader *png;
    resampler scale;
};

static _Atomic(const resample_kernels *) chosen;

static bool can_run(const resample_kernels *kernels)
{
    if (kernels == &resample_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && can_run(&resample_avx2);
    return kernels != &resample_avx2 || __builtin_cpu_supports("avx2");
}

/* From the best down. */
static const resample_kernels *const variants[] = {&resample_avx512, &resample_avx2, &resample_plain};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

static const resample_kernels *kernels_in_use(void)
{
    const resample_kernels *kernels = atomic_load(&chosen);
    for (int i = 0; i < VARIANTS && !kernels; i++)
        if (can_run(variants[i]))
            kernels = variants[i];
    return kernels;
}

const char *image_isa(void)
{
    return kernels_in_use()->name;
}

int image_choose_isa(const char *name)
{
    for (int i = 0; i < VARIANTS; i++)
        if (strcmp(variants[i]->name, name) == 0) {
            CHECK(can_run(variants[i]), ERROR_SETTINGS, "this processor has no %s", name);
            atomic_store(&chosen, variants[i]);
            return 0;
        }
    return error_set(ERROR_SETTINGS, "\"%s\": expected avx512, avx2 or plain", name);
}

int image_check_size(const image_info *info)
{
    const int64_t pixels = (int64_t)info->height * info->width;
    CHECK(pixels > 0 && pixels <= IMAGE_MOST_PIXELS, ERROR_DATA, "%dx%d pixels; at most %d in all are allowed",
          info->width, info->height, IMAGE_MOST_PIXELS);
    return 0;
}

static int open_parts(image_decoder *decoder)
{
    TRY(jpeg_reader_open(&decoder->jpeg));
    return png_reader_open(&decoder->png);
}

int image_decoder_open(image_decoder **decoder)
{
    *decoder = calloc(1, sizeof **decoder);
    CHECK(*decoder, ERROR_MEMORY, "no memory for a decoder of images");
    int status = open_parts(*decoder);
    if (status < 0)
        image_decoder_close(decoder);
    return status;
}

void image_decoder_close(image_decoder **decoder)
{
    if (!*decoder)
        return;
    jpeg_reader_close(&(*decoder)->jpeg);
    png_reader_close(&(*decoder)->png);
    resampler_free(&(*decoder)->scale);
    free(*decoder);
    *decoder = NULL;
}

static bool starts_with(const uint8_t *bytes, size_t size, const char *magic, size_t count)
{
    return size >= count && memcmp(bytes, magic, count) == 0;
}

int image_probe(image_decoder *decoder, const void *bytes, size_t size, image_info *info)
{
    CHECK(size > 0, ERROR_DATA, "the file is empty");
    if (starts_with(bytes, size, "\xff\xd8\xff", 3))
        return jpeg_reader_start(decoder->jpeg, bytes, size, info);
    if (starts_with(bytes, size, "\x89PNG\r\n\x1a\n", 8))
        return png_reader_start(decoder->png, bytes, size, info);
    return error_set(ERROR_DATA, "neither a JPEG nor a PNG file, by its first bytes");
}

static bool lies_in(const image_region *inner, int32_t height, int32_t width)
{
    return inner->top >= 0 && inner->left >= 0 && inner->height > 0 && inner->width > 0 && inner->height <= height &&
           inner->top <= height - inner->height && inner->width <= width && inner->left <= width - inner->width;
}

static int check_view(const image_view *view, const image_info *info)
{
    const image_region *from = &view->region, *window = &view->window;
    CHECK(lies_in(from, info->height, info->width), ERROR_INTERNAL,
          "the region %dx%d at (%d, %d) is not in %dx%d pixels", from->width, from->height, from->left, from->top,
          info->width, info->height);
    CHECK(lies_in(window, view->height, view->width) && window->width <= INT32_MAX / RESAMPLE_PIXEL, ERROR_INTERNAL,
          "the window %dx%d at (%d, %d) is not in %dx%d pixels", window->width, window->height, window->left,
          window->top, view->width, view->height);
    return 0;
}

int image_decode(image_decoder *decoder, const void *bytes, size_t size, const image_view *view, uint8_t *pixels)
{
    image_info info;
    resampler *scale = &decoder->scale;
    TRY(image_probe(decoder, bytes, size, &info));
    TRY(check_view(view, &info));
    TRY(resampler_begin(scale, kernels_in_use(), view, pixels));
    return info.format == IMAGE_JPEG ? jpeg_reader_rows(decoder->jpeg, scale) : png_reader_rows(decoder->png, scale);
}

image_view image_whole(const image_info *info)
{
    const image_region all = {.height = info->height, .width = info->width};
    return (image_view){.region = all, .height = info->height, .width = info->width, .window = all};
}

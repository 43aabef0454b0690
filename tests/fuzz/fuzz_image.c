/* Decodes a JPEG or PNG file: the header, a view out of the middle, and the whole where it is small. A view that can be
 * had has the bits of the same view of another decoding, which comes after one that may have failed half-way. */
#include "fuzz.h"
#include "io/image/decode.h"

#include <stdlib.h>
#include <string.h>

enum { SIDE = 24, MOST_PIXELS = 1 << 20 };

static image_view middle_of(const image_info *info)
{
    const int32_t height = (info->height + 1) / 2, width = (info->width + 1) / 2;
    return (image_view){
        .region = {.top = info->height / 4, .left = info->width / 4, .height = height, .width = width},
        .height = SIDE,
        .width = SIDE,
        .window = {.top = 1, .left = 2, .height = SIDE - 3, .width = SIDE - 2}};
}

static void decode_whole(image_decoder *decoder, const uint8_t *bytes, size_t count, const image_info *info)
{
    const image_view whole = image_whole(info);
    uint8_t *pixels = malloc((size_t)info->height * (size_t)info->width * IMAGE_CHANNELS);
    if (pixels)
        (void)image_decode(decoder, bytes, count, &whole, pixels);
    free(pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    uint8_t first[SIDE * SIDE * IMAGE_CHANNELS] = {0}, second[SIDE * SIDE * IMAGE_CHANNELS] = {0};
    image_decoder *decoder;
    image_info info;
    if (image_decoder_open(&decoder) < 0)
        abort();
    if (image_probe(decoder, bytes, count, &info) == 0 && (int64_t)info.height * info.width <= MOST_PIXELS) {
        const image_view view = middle_of(&info);
        const int status = image_decode(decoder, bytes, count, &view, first);
        decode_whole(decoder, bytes, count, &info);
        if (image_decode(decoder, bytes, count, &view, second) != status ||
            (status == 0 && memcmp(first, second, sizeof first) != 0))
            abort();
    }
    image_decoder_close(&decoder);
    return 0;
}

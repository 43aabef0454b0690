/* Reads the header of an image and decodes three views of it: all of it, a part as it is, and a part that is scaled.
 * Images whose pixels would take long are only looked at. */
#include "fuzz.h"
#include "io/image/decode.h"

#include <stdlib.h>

enum { MOST_PIXELS = 1 << 18, SIDE = 17 };

static void decode(image_decoder *decoder, const uint8_t *bytes, size_t count, const image_view *view)
{
    uint8_t *pixels = malloc((size_t)view->window.height * (size_t)view->window.width * IMAGE_CHANNELS);
    if (pixels)
        image_decode(decoder, bytes, count, view, pixels);
    free(pixels);
}

static void decode_views(image_decoder *decoder, const uint8_t *bytes, size_t count, const image_info *info)
{
    image_view view = image_whole(info);
    decode(decoder, bytes, count, &view);
    view.region = (image_region){.top = info->height / 3, .left = info->width / 4};
    view.region.height = (info->height - view.region.top + 1) / 2;
    view.region.width = (info->width - view.region.left + 1) / 2;
    view.height = view.region.height;
    view.width = view.region.width;
    view.window = (image_region){.height = view.height, .width = view.width};
    decode(decoder, bytes, count, &view);
    view.height = view.width = SIDE;
    view.window = (image_region){.top = 1, .left = 2, .height = SIDE - 2, .width = SIDE - 2};
    decode(decoder, bytes, count, &view);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static image_decoder *decoder; /* one for all, as in the program: an image must leave nothing for the next one */
    image_info info;
    if (!decoder && image_decoder_open(&decoder) < 0)
        abort();
    if (image_probe(decoder, bytes, count, &info) == 0 && (int64_t)info.height * info.width <= MOST_PIXELS)
        decode_views(decoder, bytes, count, &info);
    return 0;
}

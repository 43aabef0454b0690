/* Owns one thread's memory for looking at images and making smaller ones. One thread. */
#include "io/pack/prepare.h"

#include "base/error.h"
#include "io/image/encode.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

int preparer_open(preparer *p, int32_t max_side, int32_t quality)
{
    *p = (preparer){.max_side = max_side, .quality = quality};
    return image_decoder_open(&p->decoder);
}

void preparer_close(preparer *p)
{
    image_decoder_close(&p->decoder);
    free(p->pixels);
    free(p->encoded);
    memset(p, 0, sizeof *p);
}

/* Does the name say another format? */
static bool is_misnamed(const char *name, image_format format)
{
    const char *dot = strrchr(name, '.');
    const bool says_png = dot && strcasecmp(dot, ".png") == 0;
    return says_png != (format == IMAGE_PNG);
}

static uint32_t flags_of(const char *name, const image_info *info)
{
    const bool png = info->format == IMAGE_PNG;
    return (png ? SHARD_PNG : 0u) | (info->channels <= 2 ? SHARD_GREY : 0u) |
           (!png && info->channels == 4 ? SHARD_CMYK : 0u) | (info->progressive ? SHARD_PROGRESSIVE : 0u) |
           (is_misnamed(name, info->format) ? SHARD_MISNAMED : 0u);
}

static int32_t scaled(int32_t side, int32_t longest, int32_t most)
{
    const int32_t result = (int32_t)(((int64_t)side * most + longest / 2) / longest);
    return result > 0 ? result : 1;
}

static int reserve_pixels(preparer *p, size_t bytes)
{
    if (bytes <= p->room)
        return 0;
    uint8_t *grown = realloc(p->pixels, bytes);
    CHECK(grown, ERROR_MEMORY, "no memory for an image of %zu bytes", bytes);
    p->pixels = grown;
    p->room = bytes;
    return 0;
}

/* A JPEG of the whole image whose longer side is max_side. */
static int shrink(preparer *p, const byte_buffer *original, const image_info *info, shard_image *image,
                  const void **bytes)
{
    image_view view = image_whole(info);
    const int32_t longest = info->height > info->width ? info->height : info->width;
    size_t size = 0;
    view.height = scaled(info->height, longest, p->max_side);
    view.width = scaled(info->width, longest, p->max_side);
    view.window = (image_region){.height = view.height, .width = view.width};
    TRY(reserve_pixels(p, (size_t)view.height * (size_t)view.width * IMAGE_CHANNELS));
    TRY(image_decode(p->decoder, original->bytes, original->size, &view, p->pixels));
    free(p->encoded);
    p->encoded = NULL;
    TRY(image_encode_jpeg(p->pixels, view.height, view.width, p->quality, &p->encoded, &size));
    *bytes = p->encoded;
    image->size = (uint32_t)size;
    image->height = view.height;
    image->width = view.width;
    image->flags = SHARD_RECODED | (image->flags & SHARD_MISNAMED);
    return 0;
}

int prepare_image(preparer *p, const char *name, const byte_buffer *original, shard_image *image, const void **bytes)
{
    image_info info;
    TRY(image_probe(p->decoder, original->bytes, original->size, &info));
    image->size = (uint32_t)original->size;
    image->height = info.height;
    image->width = info.width;
    image->flags = flags_of(name, &info);
    *bytes = original->bytes;
    const bool is_large = p->max_side > 0 && (info.height > p->max_side || info.width > p->max_side);
    return is_large ? shrink(p, original, &info, image, bytes) : 0;
}

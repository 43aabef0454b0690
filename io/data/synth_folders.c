/* The synthetic set as class folders of compressed images. Owns the memory for one image. Invariant: an image's size
 * and format are functions of (seed, split, index), as what it shows is. */
#include "io/data/synth.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/image.h"
#include "base/rng.h"
#include "io/image/decode.h"
#include "io/image/encode.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_SIDE = 40, MOST_SIDE = 96, QUALITY = 92, ONE_IN_PNG = 16, ONE_IN_GREY = 16, DRAWS = 4 };

/* How an image is stored. */
typedef struct {
    int32_t height, width;
    bool png, grey;
} shape;

static shape shape_of(uint64_t seed, uint32_t split, uint32_t index)
{
    const uint64_t stream = rng_stream(RNG_SYNTHETIC, UINT64_C(4) << 32 | split), first = (uint64_t)index * DRAWS;
    const uint32_t sides = MOST_SIDE - LEAST_SIDE + 1;
    return (shape){.height = LEAST_SIDE + (int32_t)rng_below(seed, stream, first, sides),
                   .width = LEAST_SIDE + (int32_t)rng_below(seed, stream, first + 1, sides),
                   .png = rng_below(seed, stream, first + 2, ONE_IN_PNG) == 0,
                   .grey = rng_below(seed, stream, first + 3, ONE_IN_GREY) == 0};
}

/* Rows of RGB out of planes; a grey image has three equal channels. */
static void interleave(const uint8_t *planar, bool grey, uint8_t *pixels)
{
    enum { PLANE = SYNTH_SIDE * SYNTH_SIDE };
    for (int i = 0; i < PLANE; i++)
        for (int c = 0; c < IMAGE_CHANNELS; c++)
            pixels[i * IMAGE_CHANNELS + c] = planar[(grey ? 1 : c) * PLANE + i];
}

/* The drawing, scaled by way of the decoder. */
static int scale(image_decoder *decoder, const uint8_t *drawing, const shape *s, uint8_t *pixels)
{
    uint8_t *png;
    size_t size;
    const image_view view = {.region = {.height = SYNTH_SIDE, .width = SYNTH_SIDE},
                             .height = s->height,
                             .width = s->width,
                             .window = {.height = s->height, .width = s->width}};
    TRY(image_encode_png(drawing, SYNTH_SIDE, SYNTH_SIDE, &png, &size));
    int status = image_decode(decoder, png, size, &view, pixels);
    free(png);
    return status;
}

static int write_file(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    CHECK(file, ERROR_FILE, "%s: cannot be made: %s", path, strerror(errno));
    const bool written = fwrite(bytes, 1, size, file) == size;
    CHECK(fclose(file) == 0 && written, ERROR_FILE, "%s: cannot be written: %s", path, strerror(errno));
    return 0;
}

static int write_image(image_decoder *decoder, const char *folder, uint64_t seed, uint32_t split, uint32_t index)
{
    uint8_t planar[SYNTH_IMAGE_BYTES], drawing[SYNTH_IMAGE_BYTES], pixels[MOST_SIDE * MOST_SIDE * IMAGE_CHANNELS];
    uint8_t *bytes;
    size_t size;
    char path[PATH_MAX];
    const shape s = shape_of(seed, split, index);
    synth_draw(seed, split, index, planar);
    interleave(planar, s.grey, drawing);
    TRY(scale(decoder, drawing, &s, pixels));
    TRY(s.png ? image_encode_png(pixels, s.height, s.width, &bytes, &size)
              : image_encode_jpeg(pixels, s.height, s.width, QUALITY, &bytes, &size));
    CHECK(snprintf(path, sizeof path, "%s/%s/%05u.%s", folder, synth_class_name((int32_t)(index % SYNTH_CLASSES)),
                   index, s.png ? "png" : "jpg") < PATH_MAX,
          ERROR_FILE, "%s: the path is too long", folder);
    int status = write_file(path, bytes, size);
    free(bytes);
    return status;
}

static int make_class_folders(const char *folder)
{
    for (int32_t label = 0; label < SYNTH_CLASSES; label++) {
        char path[PATH_MAX];
        CHECK(snprintf(path, sizeof path, "%s/%s", folder, synth_class_name(label)) < PATH_MAX, ERROR_FILE,
              "%s: the path is too long", folder);
        TRY(make_folders(path));
    }
    return 0;
}

static int write_split(image_decoder *decoder, const char *folder, uint64_t seed, uint32_t split, int32_t images)
{
    char path[PATH_MAX];
    CHECK(snprintf(path, sizeof path, "%s/%s", folder, split ? "val" : "train") < PATH_MAX, ERROR_FILE,
          "%s: the path is too long", folder);
    TRY(make_class_folders(path));
    for (int32_t i = 0; i < images; i++)
        TRY(write_image(decoder, path, seed, split, (uint32_t)i));
    return 0;
}

int synth_write_folders(const char *folder, int32_t train_images, int32_t test_images, uint64_t seed)
{
    image_decoder *decoder;
    CHECK(train_images >= SYNTH_CLASSES && test_images >= SYNTH_CLASSES, ERROR_SETTINGS,
          "class folders need at least %d training and test images, one per class", SYNTH_CLASSES);
    TRY(image_decoder_open(&decoder));
    int status = write_split(decoder, folder, seed, 0, train_images);
    if (status == 0)
        status = write_split(decoder, folder, seed, 1, test_images);
    image_decoder_close(&decoder);
    return status;
}

/* Which part of an image the network sees, as torchvision defines it. Arithmetic alone; any thread. */
#ifndef TESKD_IO_IMAGE_CROP_H
#define TESKD_IO_IMAGE_CROP_H

#include "base/image.h"

/* Of RandomResizedCrop: share of the area, and width / height. */
typedef struct {
    double scale[2], ratio[2];
} crop_range;

/* torchvision.transforms.RandomResizedCrop: ten times an area drawn evenly from `scale` and a ratio drawn evenly from
 * the logarithm of `ratio`, both sides rounded half to even; the first that fits, at a place drawn evenly; else the
 * central crop whose ratio is the nearest allowed.
 *
 * Draw n of an image is that of (seed, stream, n * 2^32 + position), see base/rng.h: numbers 1 and 2 are the area and
 * the ratio of the first try, 3 and 4 of the second, and so on (rng_uniform: low + (high - low) * u, of the ratio in
 * logarithms); 21 is the top and 22 the left (rng_below). 0 is free for others. */
image_region crop_random(const crop_range *range, int32_t height, int32_t width, uint64_t seed, uint64_t stream,
                         uint32_t position);

/* torchvision's Resize(resize) and CenterCrop(side): the shorter side becomes `resize`, the longer one
 * int(resize * long / short), of which the middle `side` x `side` is the window. side <= resize. */
image_view crop_center(int32_t height, int32_t width, int32_t resize, int32_t side);

#endif

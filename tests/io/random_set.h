/* A set of random images of any height and width, held in memory. */
#ifndef TESKD_TESTS_IO_RANDOM_SET_H
#define TESKD_TESTS_IO_RANDOM_SET_H

#include "base/rng.h"
#include "io/data/source.h"

static inline int random_set(image_set *set, int32_t images, int32_t height, int32_t width, int32_t classes,
                             uint64_t seed)
{
    int status = image_set_allocate(set, images, height, width, classes);
    if (status < 0)
        return status;
    for (int c = 0; c < IMAGE_CHANNELS; c++) {
        set->mean[c] = 0.4F + 0.1F * (float)c;
        set->std[c] = 0.2F + 0.05F * (float)c;
    }
    for (int32_t i = 0; i < images; i++)
        set->labels[i] = (int32_t)rng_below(seed, 1, (uint64_t)i, (uint32_t)classes);
    for (size_t i = 0; i < (size_t)images * image_bytes(set); i++)
        set->pixels[i] = (uint8_t)rng_below(seed, 2, i, 256);
    return 0;
}

#endif

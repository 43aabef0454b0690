/* Random bytes as pictures, for benchmarks that need no files. Owns no state; one thread a set. */
#include "io/data/dataset.h"

#include "base/rng.h"

#include <string.h>

int dataset_open_synthetic(dataset *set, int32_t images, int32_t height, int32_t width, int32_t classes, uint64_t seed)
{
    int status = dataset_allocate(set, images, height, width, classes);
    if (status < 0)
        return status;
    for (int c = 0; c < DATASET_CHANNELS; c++) { /* those of uniform numbers in [0, 1] */
        set->mean[c] = 0.5F;
        set->std[c] = 0.288675F;
    }
    const uint64_t label_stream = rng_stream(RNG_SYNTHETIC, UINT64_C(2) << 32);
    const uint64_t pixel_stream = rng_stream(RNG_SYNTHETIC, UINT64_C(3) << 32);
    for (int32_t i = 0; i < images; i++)
        set->labels[i] = (int32_t)rng_below(seed, label_stream, (uint64_t)i, (uint32_t)classes);
    const size_t bytes = (size_t)images * dataset_picture_bytes(set);
    uint32_t block[4];
    for (size_t i = 0; i < bytes; i += sizeof block) {
        const uint64_t index = i / sizeof block;
        const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)pixel_stream,
                                     (uint32_t)(pixel_stream >> 32)};
        rng_philox(seed, counter, block);
        memcpy(set->pixels + i, block, bytes - i < sizeof block ? bytes - i : sizeof block);
    }
    return 0;
}

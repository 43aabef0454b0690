/* Random bytes as images, a function of the request alone. Owns no state; one thread per set. */
#include "io/data/drivers.h"

#include "base/error.h"
#include "base/rng.h"

#include <string.h>

static void draw_labels(image_set *set, uint64_t seed)
{
    const uint64_t stream = rng_stream(RNG_SYNTHETIC, UINT64_C(2) << 32);
    for (int32_t i = 0; i < set->images; i++)
        set->labels[i] = (int32_t)rng_below(seed, stream, (uint64_t)i, (uint32_t)set->classes);
}

static void draw_pixels(image_set *set, uint64_t seed)
{
    const uint64_t stream = rng_stream(RNG_SYNTHETIC, UINT64_C(3) << 32);
    const size_t bytes = (size_t)set->images * image_bytes(set);
    uint32_t block[4];
    for (size_t i = 0; i < bytes; i += sizeof block) {
        const uint64_t index = i / sizeof block;
        const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                                     (uint32_t)(stream >> 32)};
        rng_philox(seed, counter, block);
        memcpy(set->pixels + i, block, bytes - i < sizeof block ? bytes - i : sizeof block);
    }
}

/* The splits differ by their seed. */
static int open_synthetic(image_set *set, const data_source *source, const source_request *request)
{
    const uint64_t seed = request->seed + (request->split == SPLIT_TEST);
    const int64_t images = source_expected_images(source, request->split, request->limit);
    TRY(image_set_allocate(set, (int32_t)images, request->side, request->side, request->classes));
    draw_labels(set, seed);
    draw_pixels(set, seed);
    return 0;
}

const source_driver synthetic_driver = {.open = open_synthetic};

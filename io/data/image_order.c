/* Owns nothing. Invariant: every image comes once. */
#include "io/data/image_order.h"

#include "base/rng.h"

/* The image at a place of the storage. */
static int32_t stored_at(const image_set *set, int32_t place)
{
    return set->storage ? set->storage[place] : place;
}

/* Fisher-Yates over items[0..n); each call has draws of its own, from `first` on. */
static void shuffle(int32_t *items, int32_t n, uint64_t seed, uint64_t stream, int32_t first)
{
    for (int32_t i = n - 1; i > 0; i--) {
        const uint32_t j = rng_below(seed, stream, (uint64_t)first + (uint64_t)i, (uint32_t)i + 1);
        const int32_t kept = items[i];
        items[i] = items[j];
        items[j] = kept;
    }
}

static int32_t smaller(int64_t a, int64_t b)
{
    return (int32_t)(a < b ? a : b);
}

/* The numbers of the blocks, in random order, stand at the end of `out` until each is replaced by its images: block by
 * block from the front, which is never ahead of what is still to be read. */
static void place_blocks(const image_set *set, int32_t block, int32_t blocks, const int32_t *numbers, int32_t *out)
{
    int32_t done = 0;
    for (int32_t b = 0; b < blocks; b++) {
        const int32_t first = numbers[b] * block, count = smaller(block, set->images - first);
        for (int32_t i = 0; i < count; i++)
            out[done++] = stored_at(set, first + i);
    }
}

static void fill_blocks(const image_order *order, const image_set *set, uint64_t seed, int64_t epoch, int32_t *out)
{
    const int32_t images = set->images, blocks = (int32_t)(((int64_t)images + order->block - 1) / order->block);
    int32_t *numbers = out + images - blocks;
    for (int32_t b = 0; b < blocks; b++)
        numbers[b] = b;
    shuffle(numbers, blocks, seed, rng_stream(RNG_BLOCKS, (uint64_t)epoch), 0);
    place_blocks(set, order->block, blocks, numbers, out);
    const int64_t window = (int64_t)order->block * order->window;
    for (int64_t first = 0; first < images; first += window)
        shuffle(out + first, smaller(window, images - first), seed, rng_stream(RNG_ORDER, (uint64_t)epoch),
                (int32_t)first);
}

void image_order_fill(const image_order *order, const image_set *set, uint64_t seed, int64_t epoch, int32_t *out)
{
    if (order->kind == IMAGE_ORDER_GLOBAL) {
        rng_permutation(seed, (uint64_t)epoch, set->images, out);
        return;
    }
    if (order->kind == IMAGE_ORDER_BLOCK) {
        fill_blocks(order, set, seed, epoch, out);
        return;
    }
    for (int32_t i = 0; i < set->images; i++)
        out[i] = i;
}

/* In which order an epoch goes through the images of a set: a pure function of (seed, epoch). Any thread. */
#ifndef TESKD_IO_DATA_IMAGE_ORDER_H
#define TESKD_IO_DATA_IMAGE_ORDER_H

#include "io/data/source.h"

typedef enum {
    IMAGE_ORDER_SET,    /* the set's own order */
    IMAGE_ORDER_GLOBAL, /* a permutation of all images */
    IMAGE_ORDER_BLOCK   /* see below */
} image_order_kind;

/* IMAGE_ORDER_BLOCK: blocks of `block` images that are stored side by side come in a random order; the images of each
 * `window` blocks that follow one another are then permuted. */
typedef struct {
    image_order_kind kind;
    int32_t block, window;
} image_order;

/* Fills order[set->images] with the images' numbers. */
void image_order_fill(const image_order *order, const image_set *set, uint64_t seed, int64_t epoch, int32_t *out);

#endif

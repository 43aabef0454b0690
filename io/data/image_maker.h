/* What one thread of a loader does: makes images of a batch, each in its place of a slot. */
#ifndef TESKD_IO_DATA_IMAGE_MAKER_H
#define TESKD_IO_DATA_IMAGE_MAKER_H

#include "io/data/bad_images.h"
#include "io/data/loader.h"

/* Where a batch is made. Each image has its place, so any threads may make any of them. */
typedef struct {
    void *pixels;
    int32_t *choices, *labels;
    int32_t *index; /* [images], of the set */
    loader_batch batch;
} loader_slot;

typedef struct image_maker image_maker;

/* `options` and `bad` must outlive the maker. */
int image_maker_open(image_maker **made, const loader_options *options, bad_images *bad);

/* Makes images first to first + count - 1 of the slot: pixels or choices, and labels. One thread per maker. */
int image_maker_fill(image_maker *maker, loader_slot *slot, int32_t first, int32_t count);

/* The image that is being read, or -1: for a look from another thread. */
int32_t image_maker_at(const image_maker *maker);

/* `*maker` becomes NULL and may be NULL. */
void image_maker_close(image_maker **maker);

/* Of one image in a slot. */
size_t loader_image_bytes(const loader_options *options, int32_t height, int32_t width);

#endif

/* From stored bytes to what the network eats: random crop and flip, then normalisation. */
#ifndef TESKD_IO_DATA_AUGMENT_H
#define TESKD_IO_DATA_AUGMENT_H

#include "base/dtype.h"
#include "io/data/source.h"

#include <stdbool.h>

enum {
    AUGMENT_PADDING = 4,      /* pixels of value 0 on each side, before the crop and before normalising */
    AUGMENT_MAX_WIDTH = 1024, /* of an image */
    AUGMENT_CHOICE = 4,       /* numbers that say how an image is made: image of the set, top, left, flip */
    AUGMENT_FLIP = 3,         /* which of them is the flip, 0 or 1 */
};

/* Which random choices to make; the image's position in the epoch's global order is the third coordinate. */
typedef struct {
    uint64_t seed;
    int32_t epoch;
} augment_key;

typedef struct {
    int32_t top, left; /* of the crop in the padded image, 0 to 2 * AUGMENT_PADDING */
    bool flip;         /* left to right, after the crop */
} augment_choice;

/* A pure function of its arguments: the same for any number of threads and ranks. */
augment_choice augment_choose(augment_key key, int32_t position);

/* Makes `count` images: the k-th is image `order[k]` of the set, at global position `position + k` of the epoch.
 * `key` NULL: the whole image as it is. Output is normalised, (byte / 255 - mean) / std, as `real` in NHWC of the
 * set's size, and int32 labels. ERROR_DATA for an index outside the set or a label outside its classes. */
int augment_batch(const image_set *set, const augment_key *key, const int32_t *order, int32_t position, int32_t count,
                  dtype real, void *pixels, int32_t *labels);

/* The same without making the images: how each is to be made, [count][AUGMENT_CHOICE]. Without a key that is top and
 * left AUGMENT_PADDING, flip 0: the whole image. */
int augment_choices(const image_set *set, const augment_key *key, const int32_t *order, int32_t position, int32_t count,
                    int32_t *choices, int32_t *labels);

/* Normalises an image of the set's kind and any size, [height][width][3], turned left to right with `flip`. */
void augment_normalise(const image_set *set, const uint8_t *pixels, int32_t height, int32_t width, bool flip,
                       dtype real, void *out);

/* The normalised value of every byte in each channel, [256][3] of `real`: what augment_batch writes. */
void augment_table(const image_set *set, dtype real, void *table);

#endif

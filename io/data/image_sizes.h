/* How large the images of an epoch are, where training begins with smaller ones. Arithmetic alone; any thread. */
#ifndef TESKD_IO_DATA_IMAGE_SIZES_H
#define TESKD_IO_DATA_IMAGE_SIZES_H

#include <stdint.h>

enum { IMAGE_SIZE_STEP = 32, IMAGE_SIZES_MOST = 16 };

/* From `first` to `last` pixels over `epochs` epochs. Equal sizes: always that one. */
typedef struct {
    int32_t first, last;
    int64_t epochs;
} image_sizes;

/* The sizes that there are, upwards in steps of IMAGE_SIZE_STEP, the last one `last`; how many: at most
 * IMAGE_SIZES_MOST, or -1. */
int image_sizes_list(const image_sizes *sizes, int32_t list[IMAGE_SIZES_MOST]);

/* Which of them epoch 0 to epochs - 1 has: each has an equal share of the epochs, the later ones one more. An epoch
 * past the end has the last. */
int image_sizes_index(const image_sizes *sizes, int64_t epoch);

int32_t image_sizes_at(const image_sizes *sizes, int64_t epoch);

#endif

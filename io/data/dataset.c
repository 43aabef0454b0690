/* Owns the memory of a data set. A set is read-only after its open call, so any number of threads may read it. */
#include "io/data/dataset.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int dataset_allocate(dataset *set, int32_t images, int32_t height, int32_t width, int32_t classes)
{
    memset(set, 0, sizeof *set);
    CHECK(images > 0 && height > 0 && width > 0 && classes > 0, ERROR_SETTINGS,
          "a data set needs at least one picture, row, column and class, not %d x %d x %d with %d classes", images,
          height, width, classes);
    set->images = images;
    set->height = height;
    set->width = width;
    set->channels = DATASET_CHANNELS;
    set->classes = classes;
    set->pixels = malloc((size_t)images * dataset_picture_bytes(set));
    set->labels = malloc((size_t)images * sizeof *set->labels);
    if (!set->pixels || !set->labels) {
        dataset_close(set);
        return error_set(ERROR_MEMORY, "no memory for a data set of %d pictures of %d x %d", images, height, width);
    }
    return 0;
}

void dataset_identity(const dataset *set, char text[DATASET_IDENTITY_BYTES])
{
    XXH64_hash_t labels = XXH3_64bits(set->labels, (size_t)set->images * sizeof *set->labels);
    XXH64_hash_t all = XXH3_64bits_withSeed(set->pixels, (size_t)set->images * dataset_picture_bytes(set), labels);
    snprintf(text, DATASET_IDENTITY_BYTES, "%d images of %dx%d, %d classes, checksum %016llx", set->images, set->width,
             set->height, set->classes, (unsigned long long)all);
}

void dataset_close(dataset *set)
{
    free(set->pixels);
    free(set->labels);
    memset(set, 0, sizeof *set);
}

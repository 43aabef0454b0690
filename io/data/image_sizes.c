/* Owns nothing. Invariant: sizes never fall from one epoch to the next, and the last epoch has the last size. */
#include "io/data/image_sizes.h"

int image_sizes_list(const image_sizes *sizes, int32_t list[IMAGE_SIZES_MOST])
{
    int count = 0;
    for (int32_t size = sizes->first; size < sizes->last; size += IMAGE_SIZE_STEP) {
        if (count == IMAGE_SIZES_MOST - 1)
            return -1;
        list[count++] = size;
    }
    list[count++] = sizes->last;
    return count;
}

int image_sizes_index(const image_sizes *sizes, int64_t epoch)
{
    int32_t list[IMAGE_SIZES_MOST];
    const int count = image_sizes_list(sizes, list);
    if (epoch >= sizes->epochs || count <= 1)
        return count - 1;
    const int64_t from_end = (sizes->epochs - 1 - epoch) * count / sizes->epochs;
    return count - 1 - (int)from_end;
}

int32_t image_sizes_at(const image_sizes *sizes, int64_t epoch)
{
    int32_t list[IMAGE_SIZES_MOST];
    image_sizes_list(sizes, list);
    return list[image_sizes_index(sizes, epoch)];
}

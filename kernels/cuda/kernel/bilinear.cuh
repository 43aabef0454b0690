/* Positions and weights of the bilinear upsample with aligned corners, along one axis. */
#ifndef TESKD_KERNELS_CUDA_BILINEAR_CUH
#define TESKD_KERNELS_CUDA_BILINEAR_CUH

#include "vector.cuh"

/* Where position `i` of a line of 2 * size lies between the positions of the small line: the first of its two
 * neighbours and the weight of the second. The ends of both lines meet: i * (size - 1) / (2 * size - 1). */
struct bilinear_source {
    int first, second;
    float weight;
};

__device__ static inline bilinear_source source_of(int i, int size)
{
    const int steps = 2 * size - 1, position = i * (size - 1), first = position / steps;
    return bilinear_source{first, first + 1 < size ? first + 1 : first, (float)(position % steps) / (float)steps};
}

/* The positions of the large line that may read position `i` of the small one: first to last. */
struct bilinear_readers {
    int first, last;
};

__device__ static inline bilinear_readers readers_of(int i, int size)
{
    const int steps = 2 * size - 1;
    if (size == 1)
        return bilinear_readers{0, 1};
    const int first = (i - 1) * steps / (size - 1) + 1, last = (i + 1) * steps / (size - 1);
    return bilinear_readers{i == 0 ? 0 : first, last < steps ? last : steps};
}

/* What position `i` of the small line gives to position `reader` of the large one: a hat around i. */
__device__ static inline float weight_for(int reader, int i, int size)
{
    const int steps = 2 * size - 1, distance = reader * (size - 1) - i * steps;
    return 1 - (float)(distance < 0 ? -distance : distance) / (float)steps;
}

#endif

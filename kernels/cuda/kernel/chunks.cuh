/* A tensor in chunks of a fixed size, so that a sum over it has one order, whatever the grid: each thread's elements of
 * a chunk, four at a time. */
#ifndef TESKD_KERNELS_CUDA_CHUNKS_CUH
#define TESKD_KERNELS_CUDA_CHUNKS_CUH

#include "launch.cuh"

enum { ELEMENTS = 4, CHUNK = THREADS * ELEMENTS * 4 /* elements of a tensor that a block does at a time */ };

/* Calls whole(i) for every four elements that this thread has of the chunk, one(i) for the rest, one by one. */
template <typename Whole, typename One>
__device__ static inline void over_chunk(int64_t chunk, int64_t count, Whole whole, One one)
{
    const int64_t begin = chunk * CHUNK, end = begin + CHUNK < count ? begin + CHUNK : count;
#pragma unroll 1
    for (int64_t i = begin + (int64_t)threadIdx.x * ELEMENTS; i < end; i += (int64_t)blockDim.x * ELEMENTS)
        if (i + ELEMENTS <= end)
            whole(i);
        else
#pragma unroll 1
            for (int64_t k = i; k < end; k++)
                one(k);
}

#endif

/* The learning rate of LARS for one tensor, from the sums of its chunks: shared by the rate of one tensor and those of
 * many, so that both give the same bits. Products and sums are float64. */
#ifndef TESKD_KERNELS_CUDA_LARS_CUH
#define TESKD_KERNELS_CUDA_LARS_CUH

#include "chunks.cuh"
#include "reduce.cuh"

#include <float.h>

struct lars_constants {
    double eta, weight_decay;
};

__device__ inline double sum_of_squares(const float *x, int64_t chunk, int64_t count)
{
    double sum = 0;
    over_chunk(
        chunk, count,
        [&](int64_t i) {
            float value[ELEMENTS];
            load(x + i, value);
#pragma unroll
            for (int j = 0; j < ELEMENTS; j++)
                sum = fma((double)value[j], (double)value[j], sum);
        },
        [&](int64_t i) { sum = fma((double)x[i], (double)x[i], sum); });
    return block_sum(sum);
}

/* part[0], part[1]: what a chunk of the weight and of its gradient add to their squared norms. A whole block. */
__device__ inline void add_chunk(const float *w, const float *dw, int64_t chunk, int64_t count, double *part)
{
    const double of_weight = sum_of_squares(w, chunk, count), of_gradient = sum_of_squares(dw, chunk, count);
    if (threadIdx.x == 0) {
        part[0] = of_weight;
        part[1] = of_gradient;
    }
}

/* The rate, from the parts of all chunks of the tensor. A whole block. */
__device__ inline void find_rate(const double *part, int64_t chunks, const double *lr, const double *factor,
                                 lars_constants s, double *rate)
{
    double of_weight = 0, of_gradient = 0;
    for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += THREADS) {
        of_weight += part[2 * chunk];
        of_gradient += part[2 * chunk + 1];
    }
    const double weight = sqrt(block_sum(of_weight)),
                 gradient = (factor ? *factor : 1.0) * sqrt(block_sum(of_gradient));
    const double divisor = gradient + s.weight_decay * weight;
    const bool trusted = weight > 0 && divisor > 0;
    if (threadIdx.x == 0)
        *rate = trusted ? fmin(*lr * s.eta * weight / divisor, (double)FLT_MAX) : *lr;
}

#endif

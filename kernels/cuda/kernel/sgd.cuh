/* One step of SGD on a thread's weights: shared by the update of one tensor and that of many, so that both give the
 * same bits. */
#ifndef TESKD_KERNELS_CUDA_SGD_CUH
#define TESKD_KERNELS_CUDA_SGD_CUH

#include "vector.cuh"

struct sgd_constants {
    float momentum;
    bool nesterov;
    float share; /* of the new weight in its EMA */
};

/* One step of an EMA towards x. */
__device__ inline float follow(float ema, float x, float share)
{
    return fmaf(share, x - ema, ema);
}

/* What the device says of the step: the learning rate, the factor of the gradients (NaN: no step). */
struct sgd_step {
    float rate, factor;
};

__device__ inline sgd_step read_step(const double *lr, const double *factor)
{
    return sgd_step{(float)*lr, factor ? (float)*factor : 1.0f};
}

__device__ inline void sgd_element(float &w, float &v, float dw, float decay, const sgd_step &step,
                                   const sgd_constants &s)
{
    const float g = fmaf(step.factor, dw, decay * w);
    v = fmaf(s.momentum, v, g);
    w -= step.rate * (s.nesterov ? fmaf(s.momentum, v, g) : v);
}

/* V elements from `w` on; `copy` and `ema` may be NULL. */
template <typename C, int V>
__device__ inline void sgd_elements(float *w, float *v, const float *dw, C *copy, float *ema, float decay,
                                    const sgd_step &step, const sgd_constants &s)
{
    float weight[V], velocity[V], gradient[V], mean[V] = {};
    load(w, weight);
    load(v, velocity);
    load(dw, gradient);
    if (ema)
        load(ema, mean);
#pragma unroll
    for (int j = 0; j < V; j++)
        sgd_element(weight[j], velocity[j], gradient[j], decay, step, s);
    store(w, weight);
    store(v, velocity);
    if (copy)
        store(copy, weight);
    if (ema) {
#pragma unroll
        for (int j = 0; j < V; j++)
            mean[j] = follow(mean[j], weight[j], s.share);
        store(ema, mean);
    }
}

#endif

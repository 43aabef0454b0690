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

/* What a tensor's step multiplies with: the new momentum, the gradient (NaN: no step), the weight. */
struct sgd_step {
    float rate, factor, decay;
};

/* The learning rate and the factor are what the device says of the step. */
__device__ inline sgd_step read_step(const double *lr, const double *factor, double decay)
{
    return sgd_step{(float)*lr, factor ? (float)*factor : 1.0f, (float)decay};
}

/* The same where the learning rate goes into the momentum: LARS. */
__device__ inline sgd_step read_step_rate_first(const double *lr, const double *factor, double decay)
{
    return sgd_step{1.0f, (float)(factor ? *lr * *factor : *lr), (float)(*lr * decay)};
}

__device__ inline void sgd_element(float &w, float &v, float dw, const sgd_step &step, const sgd_constants &s)
{
    const float g = fmaf(step.factor, dw, step.decay * w);
    v = fmaf(s.momentum, v, g);
    w -= step.rate * (s.nesterov ? fmaf(s.momentum, v, g) : v);
}

/* V elements from `w` on; `copy` and `ema` may be NULL. */
template <typename C, int V>
__device__ inline void sgd_elements(float *w, float *v, const float *dw, C *copy, float *ema, const sgd_step &step,
                                    const sgd_constants &s)
{
    float weight[V], velocity[V], gradient[V], mean[V] = {};
    load(w, weight);
    load(v, velocity);
    load(dw, gradient);
    if (ema)
        load(ema, mean);
#pragma unroll
    for (int j = 0; j < V; j++)
        sgd_element(weight[j], velocity[j], gradient[j], step, s);
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

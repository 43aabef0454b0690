/* The optimiser on float32 masters: SGD with momentum, the norm of all gradients, averages of the weights. Learning
 * rate and clipping factor are read on the device, so that a captured step follows the schedule. */
#include "reduce.cuh"

static constexpr int64_t SQUARE_PARTS = 1024;

template <typename F> static int with_floats(int64_t count, F function)
{
    return count % 4 == 0 ? function(width_is<4>()) : function(width_is<1>());
}

struct sgd_constants {
    float momentum, decay;
    bool nesterov;
};

template <int V>
__global__ void __launch_bounds__(THREADS) sgd_update_kernel(float *w, float *v, const float *dw, const double *lr,
                                                             const double *factor, sgd_constants s, int64_t vectors)
{
    const float rate = (float)*lr, scale = factor ? (float)*factor : 1.0f;
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float weight[V], velocity[V], g[V];
        load(w + i * V, weight);
        load(v + i * V, velocity);
        load(dw + i * V, g);
#pragma unroll
        for (int j = 0; j < V; j++) {
            g[j] = fmaf(scale, g[j], s.decay * weight[j]);
            velocity[j] = fmaf(s.momentum, velocity[j], g[j]);
            weight[j] -= rate * (s.nesterov ? fmaf(s.momentum, velocity[j], g[j]) : velocity[j]);
        }
        store(w + i * V, weight);
        store(v + i * V, velocity);
    }
}

int cuda_sgd_update(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    int64_t count = tensor_count(&k->request.in[0]);
    sgd_constants s = {(float)attr->momentum, attr->decay ? (float)attr->weight_decay : 0.0f, attr->nesterov};
    return with_floats(count, [&](auto width) {
        constexpr int V = decltype(width)::value;
        return launch(sgd_update_kernel<V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                      (float *)kernel_in_out(args, 0), (float *)kernel_in_out(args, 1), (const float *)args->in[2],
                      (const double *)args->in[3], (const double *)args->in[4], s, count / V);
    });
}

template <int V>
__global__ void __launch_bounds__(THREADS)
    ema_update_kernel(const float *x, float *average, float share, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V], mean[V];
        load(x + i * V, value);
        load(average + i * V, mean);
#pragma unroll
        for (int j = 0; j < V; j++)
            mean[j] = fmaf(share, value[j] - mean[j], mean[j]);
        store(average + i * V, mean);
    }
}

int cuda_ema_update(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t count = tensor_count(&k->request.in[0]);
    return with_floats(count, [&](auto width) {
        constexpr int V = decltype(width)::value;
        return launch(ema_update_kernel<V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                      (const float *)args->in[0], (float *)kernel_in_out(args, 1),
                      (float)(1 - k->request.node.attr.momentum), count / V);
    });
}

template <int V>
__global__ void __launch_bounds__(THREADS) sum_squares_kernel(const float *x, int64_t vectors, double *part)
{
    double total = 0;
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V], sum = 0;
        load(x + i * V, value);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum = fmaf(value[j], value[j], sum);
        total += (double)sum;
    }
    total = block_sum(total);
    if (threadIdx.x == 0)
        part[blockIdx.x] = total;
}

int cuda_sum_squares_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    k->offset[0] = cuda_workspace_take(workspace, (size_t)SQUARE_PARTS * sizeof(double));
    return 0;
}

int cuda_sum_squares(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t count = tensor_count(&k->request.in[0]);
    double *parts = (double *)cuda_workspace_at(args, k->offset[0]);
    return with_floats(count, [&](auto width) {
        constexpr int V = decltype(width)::value;
        int64_t blocks = divide_up(count / V, THREADS);
        blocks = blocks < SQUARE_PARTS ? blocks : SQUARE_PARTS;
        TRY(launch(sum_squares_kernel<V>, dim3((unsigned)blocks), dim3(THREADS), 0, self->stream,
                   (const float *)args->in[0], count / V, parts));
        return sum_lists(self, 1, parts, blocks, 1, (const double *)args->in[1], (double *)args->out[0]);
    });
}

static __global__ void clip_factor_kernel(const double *sum, double max_norm, double *factor)
{
    *factor = fmin(1.0, max_norm / sqrt(*sum));
}

int cuda_clip_factor(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return launch(clip_factor_kernel, dim3(1), dim3(1), 0, self->stream, (const double *)args->in[0],
                  k->request.node.attr.max_norm, (double *)args->out[0]);
}

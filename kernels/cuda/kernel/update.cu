/* The optimiser on float32 masters: SGD with momentum, the rates of LARS, the norm of all gradients, EMA of the
 * weights. Learning rate and clipping factor are read on the device, so that a captured step follows the schedule. */
#include "lars.cuh"
#include "reduce.cuh"
#include "sgd.cuh"

static constexpr int64_t SUM_PARTS = 1024;

template <typename F> static int with_floats(int64_t count, F function)
{
    return count % 4 == 0 ? function(width_is<4>()) : function(width_is<1>());
}

template <typename C, int V>
__global__ void __launch_bounds__(THREADS)
    sgd_update_kernel(float *w, float *v, const float *dw, C *copy, float *ema, double decay, const double *lr,
                      const double *factor, bool rate_first, sgd_constants s, int64_t vectors)
{
    const sgd_step step = rate_first ? read_step_rate_first(lr, factor, decay) : read_step(lr, factor, decay);
    if (isnan(step.factor))
        return;
    for (int64_t i = flat_index(); i < vectors; i += flat_stride())
        sgd_elements<C, V>(w + i * V, v + i * V, dw + i * V, copy ? copy + i * V : NULL, ema ? ema + i * V : NULL, step,
                           s);
}

int cuda_sgd_update(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    int64_t count = tensor_count(&k->request.in[0]);
    const sgd_constants s = {(float)attr->momentum, attr->nesterov, (float)(1 - attr->ema_decay)};
    const double decay = attr->decay ? attr->weight_decay : 0;
    return with_type(args->in[5] ? k->request.in[5].dtype : (uint8_t)DTYPE_F32, [&](auto t) {
        using C = typename decltype(t)::type;
        return with_floats(count, [&](auto width) {
            constexpr int V = decltype(width)::value;
            return launch(sgd_update_kernel<C, V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                          (float *)kernel_in_out(args, 0), (float *)kernel_in_out(args, 1), (const float *)args->in[2],
                          (C *)kernel_in_out(args, 5), (float *)kernel_in_out(args, 6), decay,
                          (const double *)args->in[3], (const double *)args->in[4], attr->rate_first, s, count / V);
        });
    });
}

template <int V>
__global__ void __launch_bounds__(THREADS) ema_update_kernel(const float *x, float *ema, float share, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V], mean[V];
        load(x + i * V, value);
        load(ema + i * V, mean);
#pragma unroll
        for (int j = 0; j < V; j++)
            mean[j] = follow(mean[j], value[j], share);
        store(ema + i * V, mean);
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

struct add_square {
    __device__ float operator()(float sum, float x) const
    {
        return fmaf(x, x, sum);
    }
};

struct add_not_finite {
    __device__ float operator()(float sum, float x) const
    {
        return isfinite(x) ? sum : sum + 1;
    }
};

/* What a block's elements, taken one after the other by `add`, come to. */
template <int V, typename Add>
__global__ void __launch_bounds__(THREADS) sum_elements_kernel(const float *x, int64_t vectors, Add add, double *part)
{
    double total = 0;
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V], sum = 0;
        load(x + i * V, value);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum = add(sum, value[j]);
        total += (double)sum;
    }
    total = block_sum(total);
    if (threadIdx.x == 0)
        part[blockIdx.x] = total;
}

int cuda_sum_squares_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    k->offset[0] = cuda_workspace_take(workspace, (size_t)SUM_PARTS * sizeof(double));
    return 0;
}

template <typename Add>
static int sum_elements(const cuda_backend *self, const kernel *k, const kernel_args *args, Add add,
                        const double *before)
{
    int64_t count = tensor_count(&k->request.in[0]);
    double *parts = (double *)cuda_workspace_at(args, k->offset[0]);
    return with_floats(count, [&](auto width) {
        constexpr int V = decltype(width)::value;
        int64_t blocks = divide_up(count / V, THREADS);
        blocks = blocks < SUM_PARTS ? blocks : SUM_PARTS;
        TRY(launch(sum_elements_kernel<V, Add>, dim3((unsigned)blocks), dim3(THREADS), 0, self->stream,
                   (const float *)args->in[0], count / V, add, parts));
        return sum_lists(self, 1, parts, blocks, 1, before, (double *)args->out[0]);
    });
}

int cuda_sum_squares(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return sum_elements(self, k, args, add_square(), (const double *)args->in[1]);
}

int cuda_count_not_finite(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return sum_elements(self, k, args, add_not_finite(), NULL);
}

static __global__ void clip_factor_kernel(const double *sum, double max_norm, double *factor)
{
    *factor = isfinite(*sum) ? fmin(1.0, max_norm / sqrt(*sum)) : (double)NAN;
}

int cuda_clip_factor(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return launch(clip_factor_kernel, dim3(1), dim3(1), 0, self->stream, (const double *)args->in[0],
                  k->request.node.attr.max_norm, (double *)args->out[0]);
}

/* A block for each chunk. */
static __global__ void __launch_bounds__(THREADS)
    lars_parts_kernel(const float *w, const float *dw, int64_t count, double *part)
{
    add_chunk(w, dw, blockIdx.x, count, part + 2 * (int64_t)blockIdx.x);
}

static __global__ void __launch_bounds__(THREADS) lars_rate_kernel(const double *part, int64_t chunks, const double *lr,
                                                                   const double *factor, lars_constants s, double *rate)
{
    find_rate(part, chunks, lr, factor, s, rate);
}

int cuda_lars_rate_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    const int64_t chunks = divide_up(tensor_count(&k->request.in[0]), CHUNK);
    k->offset[0] = cuda_workspace_take(workspace, 2 * (size_t)chunks * sizeof(double));
    return 0;
}

int cuda_lars_rate(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    const int64_t count = tensor_count(&k->request.in[0]), chunks = divide_up(count, CHUNK);
    double *parts = (double *)cuda_workspace_at(args, k->offset[0]);
    TRY(launch(lars_parts_kernel, dim3((unsigned)chunks), dim3(THREADS), 0, self->stream, (const float *)args->in[0],
               (const float *)args->in[1], count, parts));
    return launch(lars_rate_kernel, dim3(1), dim3(THREADS), 0, self->stream, parts, chunks, (const double *)args->in[2],
                  (const double *)args->in[3], lars_constants{attr->eta, attr->weight_decay}, (double *)args->out[0]);
}

/* The rules of op loss_scale. */
static __global__ void loss_scale_kernel(const double *sum, float *scaling, double max_norm, double *factor)
{
    const double scale = scaling[SCALING_SCALE], norm = sqrt(*sum) / scale;
    if (!isfinite(norm)) {
        *factor = (double)NAN;
        scaling[SCALING_SCALE] = fmaxf(scaling[SCALING_SCALE] / 2, SCALE_LEAST);
        scaling[SCALING_GOOD_STEPS] = 0;
        scaling[SCALING_SKIPPED] += 1;
        scaling[SCALING_SKIPPED_IN_ROW] += 1;
        return;
    }
    scaling[SCALING_SKIPPED_IN_ROW] = 0;
    *factor = (max_norm > 0 ? fmin(1.0, max_norm / norm) : 1.0) / scale;
    scaling[SCALING_GOOD_STEPS] += 1;
    if (scaling[SCALING_GOOD_STEPS] == SCALE_GROWTH_STEPS) {
        scaling[SCALING_SCALE] = fminf(2 * scaling[SCALING_SCALE], SCALE_MOST);
        scaling[SCALING_GOOD_STEPS] = 0;
    }
}

int cuda_loss_scale(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return launch(loss_scale_kernel, dim3(1), dim3(1), 0, self->stream, (const double *)args->in[0],
                  (float *)kernel_in_out(args, 1), k->request.node.attr.max_norm, (double *)args->out[0]);
}

template <int V> __global__ void __launch_bounds__(THREADS) scale_kernel(float *x, float weight, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V];
        load(x + i * V, value);
#pragma unroll
        for (int j = 0; j < V; j++)
            value[j] *= weight;
        store(x + i * V, value);
    }
}

int cuda_scale(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t count = tensor_count(&k->request.in[0]);
    return with_floats(count, [&](auto width) {
        constexpr int V = decltype(width)::value;
        return launch(scale_kernel<V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                      (float *)kernel_in_out(args, 0), (float)k->request.node.attr.weight, count / V);
    });
}

static __global__ void metric_add_kernel(const double *x, double *sums, double weight, int count)
{
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x)
        sums[i] += weight * x[i];
}

int cuda_metric_add(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    return launch(metric_add_kernel, dim3(1), dim3(LANES), 0, self->stream, (const double *)args->in[0],
                  (double *)kernel_in_out(args, 1) + attr->channel_offset, attr->weight,
                  (int)tensor_count(&k->request.in[0]));
}

static __global__ void metric_watch_kernel(const double *x, double *count)
{
    if (!isfinite(*x))
        *count += 1;
}

int cuda_metric_watch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return launch(metric_watch_kernel, dim3(1), dim3(1), 0, self->stream, (const double *)args->in[0],
                  (double *)kernel_in_out(args, 1) + k->request.node.attr.channel_offset);
}

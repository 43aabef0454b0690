/* The optimiser: SGD with momentum, the rates of LARS, clipping by the norm of all gradients, EMA of the weights.
 * Elements belong to one thread each; the sums of the threads are added in their order. */
#include "cpu.h"

#include <float.h>
#include <math.h>
#include <string.h>

int sum_squares_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    k->offset[0] = workspace_take(workspace, (size_t)self->threads * sizeof(double));
    return 0;
}

/* `sum` and what the loop says of each thread's part of one input. */
static double sum_parts(const cpu_backend *self, const kernel *k, const kernel_args *args, int input,
                        double (*loop)(const float *x, int64_t count), double sum)
{
    const float *x = args->in[input];
    double *part = workspace_at(args, k->offset[0]);
    int64_t count = tensor_count(&k->request.in[input]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(count, t, threads), end = part_begin(count, t + 1, threads);
        part[t] = loop(x + begin, end - begin);
    }
    for (int t = 0; t < threads; t++)
        sum += part[t];
    return sum;
}

int sum_squares_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const double *before = args->in[1];
    *(double *)args->out[0] = sum_parts(self, k, args, 0, self->loops->sum_squares, before ? *before : 0);
    return 0;
}

int count_not_finite_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    *(double *)args->out[0] = sum_parts(self, k, args, 0, self->loops->count_not_finite, 0);
    return 0;
}

int clip_factor_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const double *sum = args->in[0];
    *(double *)args->out[0] = isfinite(*sum) ? fmin(1, k->request.node.attr.max_norm / sqrt(*sum)) : (double)NAN;
    return 0;
}

int lars_rate_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    const double *lr = args->in[2], *factor = args->in[3];
    double weight = sqrt(sum_parts(self, k, args, 0, self->loops->sum_squares, 0));
    double gradient = (factor ? *factor : 1) * sqrt(sum_parts(self, k, args, 1, self->loops->sum_squares, 0));
    double divisor = gradient + attr->weight_decay * weight;
    bool trusted = weight > 0 && divisor > 0;
    *(double *)args->out[0] = trusted ? fmin(*lr * attr->eta * weight / divisor, (double)FLT_MAX) : *lr;
    return 0;
}

/* Elements updated at a time: their copy and EMA then find them in the cache. */
static const int64_t cached_elements = 2048;

int sgd_update_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    float *w = kernel_in_out(args, 0), *v = kernel_in_out(args, 1);
    const float *dw = args->in[2];
    double rate = *(const double *)args->in[3], before = attr->rate_first ? rate : 1;
    float lr = attr->rate_first ? 1.0F : (float)rate, decay = attr->decay ? (float)(before * attr->weight_decay) : 0.0F;
    float factor = (float)(args->in[4] ? before * *(const double *)args->in[4] : before);
    float *copy = kernel_in_out(args, 5), *ema = kernel_in_out(args, 6), share = (float)(1 - attr->ema_decay);
    int64_t count = tensor_count(&k->request.in[0]);
    int threads = self->threads;
    if (isnan(factor))
        return 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t end = part_begin(count, t + 1, threads);
        for (int64_t i = part_begin(count, t, threads), n; i < end; i += n) {
            n = end - i < cached_elements ? end - i : cached_elements;
            self->loops->sgd_update(w + i, v + i, dw + i, n, lr, factor, (float)attr->momentum, decay, attr->nesterov);
            if (copy)
                memcpy(copy + i, w + i, (size_t)n * sizeof *copy);
            if (ema)
                self->loops->ema_update(w + i, ema + i, n, share);
        }
    }
    return 0;
}

int ema_update_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *x = args->in[0];
    float *ema = kernel_in_out(args, 1), share = (float)(1 - k->request.node.attr.momentum);
    int64_t count = tensor_count(&k->request.in[0]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(count, t, threads), end = part_begin(count, t + 1, threads);
        self->loops->ema_update(x + begin, ema + begin, end - begin, share);
    }
    return 0;
}

int loss_scale_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    float *scaling = kernel_in_out(args, 1);
    double *factor = args->out[0], max_norm = k->request.node.attr.max_norm;
    double norm = sqrt(*(const double *)args->in[0]) / (double)scaling[SCALING_SCALE];
    if (!isfinite(norm)) {
        *factor = NAN;
        scaling[SCALING_SCALE] = fmaxf(scaling[SCALING_SCALE] / 2, SCALE_LEAST);
        scaling[SCALING_GOOD_STEPS] = 0;
        scaling[SCALING_SKIPPED]++;
        scaling[SCALING_SKIPPED_IN_ROW]++;
        return 0;
    }
    scaling[SCALING_SKIPPED_IN_ROW] = 0;
    *factor = (max_norm > 0 ? fmin(1, max_norm / norm) : 1) / (double)scaling[SCALING_SCALE];
    scaling[SCALING_GOOD_STEPS]++;
    if (scaling[SCALING_GOOD_STEPS] == SCALE_GROWTH_STEPS) {
        scaling[SCALING_SCALE] = fminf(2 * scaling[SCALING_SCALE], SCALE_MOST);
        scaling[SCALING_GOOD_STEPS] = 0;
    }
    return 0;
}

int scale_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    float *x = kernel_in_out(args, 0), weight = (float)k->request.node.attr.weight;
    int64_t count = tensor_count(&k->request.in[0]);
#pragma omp parallel for num_threads(self->threads) schedule(static) if (count > PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < count; i++)
        x[i] *= weight;
    return 0;
}

int metric_add_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *sums = (double *)kernel_in_out(args, 1) + k->request.node.attr.channel_offset;
    for (int64_t i = 0; i < tensor_count(&k->request.in[0]); i++)
        sums[i] += k->request.node.attr.weight * x[i];
    return 0;
}

int metric_watch_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    double *sums = kernel_in_out(args, 1);
    sums[k->request.node.attr.channel_offset] += !isfinite(*(const double *)args->in[0]);
    return 0;
}

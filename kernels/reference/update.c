/* The optimiser: SGD with momentum, the rates of LARS, clipping by the norm of all gradients, EMA of the weights.
 * Changes the weight, its momentum and its EMA where they are. */
#include "reference.h"

#include <float.h>
#include <math.h>

int reference_sum_squares(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *dw = args->in[0], *before = args->in[1];
    double sum = before ? *before : 0;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        sum += dw[i] * dw[i];
    *(double *)args->out[0] = sum;
    return 0;
}

int reference_count_not_finite(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double found = 0;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        found += !isfinite(x[i]);
    *(double *)args->out[0] = found;
    return 0;
}

int reference_clip_factor(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *sum = args->in[0];
    *(double *)args->out[0] = isfinite(*sum) ? fmin(1, request->node.attr.max_norm / sqrt(*sum)) : NAN;
    return 0;
}

int reference_loss_scale(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *scaling = kernel_in_out(args, 1), *factor = args->out[0];
    double norm = sqrt(*(const double *)args->in[0]) / scaling[SCALING_SCALE], max_norm = request->node.attr.max_norm;
    if (!isfinite(norm)) {
        *factor = NAN;
        scaling[SCALING_SCALE] = fmax(scaling[SCALING_SCALE] / 2, SCALE_LEAST);
        scaling[SCALING_GOOD_STEPS] = 0;
        scaling[SCALING_SKIPPED]++;
        scaling[SCALING_SKIPPED_IN_ROW]++;
        return 0;
    }
    scaling[SCALING_SKIPPED_IN_ROW] = 0;
    *factor = (max_norm > 0 ? fmin(1, max_norm / norm) : 1) / scaling[SCALING_SCALE];
    scaling[SCALING_GOOD_STEPS]++;
    if (scaling[SCALING_GOOD_STEPS] == SCALE_GROWTH_STEPS) {
        scaling[SCALING_SCALE] = fmin(2 * scaling[SCALING_SCALE], SCALE_MOST);
        scaling[SCALING_GOOD_STEPS] = 0;
    }
    return 0;
}

int reference_scale(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *x = kernel_in_out(args, 0);
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        x[i] *= request->node.attr.weight;
    return 0;
}

int reference_metric_add(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *sums = (double *)kernel_in_out(args, 1) + request->node.attr.channel_offset;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        sums[i] += request->node.attr.weight * x[i];
    return 0;
}

static double norm(const double *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

int reference_lars_rate(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *lr = args->in[2], *factor = args->in[3];
    int64_t count = tensor_count(&request->in[0]);
    double weight = norm(args->in[0], count), gradient = (factor ? *factor : 1) * norm(args->in[1], count);
    double divisor = gradient + request->node.attr.weight_decay * weight;
    bool trusted = weight > 0 && divisor > 0;
    *(double *)args->out[0] = trusted ? fmin(*lr * request->node.attr.eta * weight / divisor, FLT_MAX) : *lr;
    return 0;
}

int reference_metric_watch(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *sums = kernel_in_out(args, 1);
    sums[request->node.attr.channel_offset] += !isfinite(*(const double *)args->in[0]);
    return 0;
}

int reference_sgd_update(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *w = kernel_in_out(args, 0), *v = kernel_in_out(args, 1);
    const double *dw = args->in[2], *lr = args->in[3];
    const op_attr *attr = &request->node.attr;
    double decay = attr->decay ? attr->weight_decay : 0, factor = args->in[4] ? *(const double *)args->in[4] : 1;
    double *copy = kernel_in_out(args, 5), *ema = kernel_in_out(args, 6);
    double before = attr->rate_first ? *lr : 1, after = attr->rate_first ? 1 : *lr;
    if (isnan(factor))
        return 0;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++) {
        double g = before * (factor * dw[i] + decay * w[i]);
        v[i] = attr->momentum * v[i] + g;
        w[i] -= after * (attr->nesterov ? g + attr->momentum * v[i] : v[i]);
        if (copy)
            copy[i] = w[i];
        if (ema)
            ema[i] += (1 - attr->ema_decay) * (w[i] - ema[i]);
    }
    return 0;
}

int reference_ema_update(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *ema = kernel_in_out(args, 1);
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        ema[i] += (1 - request->node.attr.momentum) * (x[i] - ema[i]);
    return 0;
}

/* The optimiser: SGD with momentum, clipping by the norm of all gradients, averages of the weights. Changes the
 * weight, its momentum and its average where they are. */
#include "reference.h"

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

int reference_clip_factor(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *sum = args->in[0];
    *(double *)args->out[0] = fmin(1, request->node.attr.max_norm / sqrt(*sum));
    return 0;
}

int reference_sgd_update(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *w = kernel_in_out(args, 0), *v = kernel_in_out(args, 1);
    const double *dw = args->in[2], *lr = args->in[3];
    const op_attr *attr = &request->node.attr;
    double decay = attr->decay ? attr->weight_decay : 0, factor = args->in[4] ? *(const double *)args->in[4] : 1;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++) {
        double g = factor * dw[i] + decay * w[i];
        v[i] = attr->momentum * v[i] + g;
        w[i] -= *lr * (attr->nesterov ? g + attr->momentum * v[i] : v[i]);
    }
    return 0;
}

int reference_ema_update(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *average = kernel_in_out(args, 1);
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        average[i] += (1 - request->node.attr.momentum) * (x[i] - average[i]);
    return 0;
}

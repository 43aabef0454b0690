/* Batch normalisation and its gradient. Invariant: mean and variance always come from the two float64 sums and
 * attr.count, never from the local rows, so that the same functions serve one rank and many.
 * Nothing is kept between calls. */
#include <math.h>
#include <string.h>

#include "reference.h"

typedef struct {
    double mean, inverse_std;
} channel_statistics;

/* `sums` is [2, C]: the sum of x and the sum of x^2. */
static double batch_mean(const double *sums, const op_attr *attr, int c)
{
    return sums[c] / attr->count;
}

static double batch_variance(const double *sums, const op_attr *attr, int channels, int c)
{
    double mean = batch_mean(sums, attr, c);
    return sums[channels + c] / attr->count - mean * mean;
}

static channel_statistics statistics(const double *sums, const op_attr *attr, int channels, int c)
{
    double variance = batch_variance(sums, attr, channels, c);
    return (channel_statistics){batch_mean(sums, attr, c), 1.0 / sqrt(variance + attr->eps)};
}

static double rectify(double y, bool relu)
{
    return relu && y < 0 ? 0 : y;
}

void reference_channel_sums(const tensor_desc *desc, const double *x, double *sums)
{
    int channels = desc->dim[3];
    memset(sums, 0, 2 * (size_t)channels * sizeof *sums);
    for (int64_t row = 0; row < tensor_rows(desc); row++)
        for (int c = 0; c < channels; c++) {
            double value = x[row * channels + c];
            sums[c] += value;
            sums[channels + c] += value * value;
        }
}

int reference_bn_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    reference_channel_sums(&request->in[0], args->in[0], args->out[0]);
    return 0;
}

int reference_bn_normalize(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0], *sums = args->in[1], *gamma = args->in[2], *beta = args->in[3];
    const double *residual = args->in[4];
    double *y = args->out[0];
    const op_attr *attr = &request->node.attr;
    int channels = request->in[0].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->in[0]); row++)
        for (int c = 0; c < channels; c++) {
            int64_t i = row * channels + c;
            channel_statistics s = statistics(sums, attr, channels, c);
            double value = gamma[c] * (x[i] - s.mean) * s.inverse_std + beta[c] + (residual ? residual[i] : 0);
            y[i] = rectify(value, attr->relu);
        }
    return 0;
}

int reference_bn_inference(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0], *mean = args->in[1], *variance = args->in[2];
    const double *gamma = args->in[3], *beta = args->in[4], *residual = args->in[5];
    double *y = args->out[0];
    const op_attr *attr = &request->node.attr;
    int channels = request->in[0].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->in[0]); row++)
        for (int c = 0; c < channels; c++) {
            int64_t i = row * channels + c;
            double normalized = (x[i] - mean[c]) / sqrt(variance[c] + attr->eps);
            y[i] = rectify(gamma[c] * normalized + beta[c] + (residual ? residual[i] : 0), attr->relu);
        }
    return 0;
}

int reference_bn_running(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *sums = args->in[0], *shift = args->in[3];
    double *mean = kernel_in_out(args, 1), *variance = kernel_in_out(args, 2);
    const op_attr *attr = &request->node.attr;
    int channels = request->in[1].dim[3];
    double unbiased = attr->count / fmax(attr->count - 1, 1);
    for (int c = 0; c < channels; c++) {
        if (!isfinite(sums[c]) || !isfinite(sums[channels + c]))
            continue;
        mean[c] += attr->momentum * (batch_mean(sums, attr, c) + (shift ? shift[c] : 0) - mean[c]);
        variance[c] += attr->momentum * (batch_variance(sums, attr, channels, c) * unbiased - variance[c]);
    }
    return 0;
}

/* What bn_param_grad makes of the sums. */
static void parameter_gradients(const double *gsums, int channels, double *dgamma, double *dbeta)
{
    for (int c = 0; c < channels; c++) {
        if (dgamma)
            dgamma[c] = gsums[channels + c];
        if (dbeta)
            dbeta[c] = gsums[c];
    }
}

int reference_bn_grad_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    enum { FIRST_DY = 5 };
    const double *x = args->in[0], *sums = args->in[1], *gamma = args->in[2], *beta = args->in[3], *y = args->in[4];
    double *gsums = args->out[0], *g_out = args->out[1];
    const op_attr *attr = &request->node.attr;
    int channels = request->in[0].dim[3];
    if (gsums)
        memset(gsums, 0, 2 * (size_t)channels * sizeof *gsums);
    for (int64_t row = 0; row < tensor_rows(&request->in[0]); row++)
        for (int c = 0; c < channels; c++) {
            int64_t i = row * channels + c;
            channel_statistics s = statistics(sums, attr, channels, c);
            double xhat = (x[i] - s.mean) * s.inverse_std;
            double forward = y ? y[i] : gamma[c] * xhat + beta[c];
            double g = 0;
            for (int d = FIRST_DY; d < request->node.n_in; d++)
                g += args->in[d] ? ((const double *)args->in[d])[i] : 0;
            if (attr->relu && !(forward > 0))
                g = 0;
            if (gsums) {
                gsums[c] += g;
                gsums[channels + c] += g * xhat;
            }
            if (g_out)
                g_out[i] = g;
        }
    if (gsums)
        parameter_gradients(gsums, channels, args->out[2], args->out[3]);
    return 0;
}

int reference_bn_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0], *sums = args->in[1], *gamma = args->in[2], *beta = args->in[3];
    const double *gsums = args->in[4], *dy = args->in[5];
    double *dx = args->out[0];
    const op_attr *attr = &request->node.attr;
    int channels = request->in[0].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->in[0]); row++)
        for (int c = 0; c < channels; c++) {
            int64_t i = row * channels + c;
            channel_statistics s = statistics(sums, attr, channels, c);
            double xhat = (x[i] - s.mean) * s.inverse_std;
            double g = attr->relu && !(gamma[c] * xhat + beta[c] > 0) ? 0 : dy[i];
            dx[i] = gamma[c] * s.inverse_std * (g - gsums[c] / attr->count - xhat * gsums[channels + c] / attr->count);
        }
    return 0;
}

int reference_bn_param_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *gsums = args->in[0];
    double *dgamma = args->out[0], *dbeta = args->out[1];
    int channels = request->in[0].dim[3];
    if (dgamma)
        memcpy(dgamma, gsums + channels, (size_t)channels * sizeof *dgamma);
    if (dbeta)
        memcpy(dbeta, gsums, (size_t)channels * sizeof *dbeta);
    return 0;
}

int reference_zero(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    memset(args->out[0], 0, tensor_bytes(&request->out[0]));
    return 0;
}

/* Batch normalisation of a product with the weight: where x is at hand by making the product, which the backends leave
 * out; else by the formulas of docs/method.md. A weight is a row-major matrix [O, C]; `moments` are x^T x [C, C], then
 * the sums of x [C]. The workspace of the input's gradient holds the product. Nothing is kept between calls. */
#include <math.h>

#include "base/error.h"
#include "reference.h"

static int columns(const tensor_desc *w)
{
    return (int)(tensor_count(w) / w->dim[0]);
}

int reference_channel_moments(const reference *self, const kernel_request *request, const kernel_args *args)
{
    kernel_request r = *request;
    double *gram = args->out[0];
    int c = request->in[0].dim[3];
    r.in[1] = r.in[0];
    return reference_linear_wgrad(
        self, &r, &(kernel_args){.in = {args->in[0], args->in[0]}, .out = {gram, gram + (int64_t)c * c}});
}

int reference_linear_bn_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *gram = args->in[0], *w = args->in[1];
    double *sums = args->out[0];
    int outputs = request->in[1].dim[0], c_count = columns(&request->in[1]);
    const double *x_sum = gram + (int64_t)c_count * c_count;
    for (int o = 0; o < outputs; o++, w += c_count) {
        sums[o] = sums[outputs + o] = 0;
        for (int c = 0; c < c_count; c++) {
            sums[o] += w[c] * x_sum[c];
            for (int d = 0; d < c_count; d++)
                sums[outputs + o] += w[c] * gram[c * c_count + d] * w[d];
        }
    }
    return 0;
}

/* linear(x, w), in[0] and in[1], into `y`; the request of an op that has it as its first input. */
static int product(const reference *self, const kernel_request *request, const kernel_args *args, int x_index,
                   double *y, kernel_request *of_product)
{
    kernel_request r = {.in = {request->in[x_index], request->in[x_index + 1]}, .out = {request->in[x_index]}};
    r.out[0].dim[3] = request->in[x_index + 1].dim[0];
    TRY(reference_linear(self, &r, &(kernel_args){.in = {args->in[x_index], args->in[x_index + 1]}, .out = {y}}));
    *of_product = (kernel_request){.node = request->node, .in = {r.out[0]}, .out = {r.out[0]}};
    return 0;
}

int reference_linear_bn(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const void *const *in = args->in;
    double *y = args->out[0];
    kernel_request r;
    TRY(product(self, request, args, 0, y, &r));
    return reference_bn_normalize(self, &r, &(kernel_args){.in = {y, in[2], in[3], in[4]}, .out = {y}});
}

typedef struct {
    double mean, inverse_std;
} channel_statistics;

static channel_statistics statistics(const double *sums, const op_attr *attr, int outputs, int o)
{
    double mean = sums[o] / attr->count, variance = sums[outputs + o] / attr->count - mean * mean;
    return (channel_statistics){mean, 1 / sqrt(variance + attr->eps)};
}

int reference_linear_bn_grad_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *dw = args->in[0], *dbias = args->in[1], *w = args->in[2], *sums = args->in[3];
    double *gsums = args->out[0], *dgamma = args->out[2], *dbeta = args->out[3];
    int outputs = request->in[2].dim[0], c_count = columns(&request->in[2]);
    for (int o = 0; o < outputs; o++) {
        channel_statistics s = statistics(sums, &request->node.attr, outputs, o);
        double of_product = 0;
        for (int c = 0; c < c_count; c++)
            of_product += dw[o * c_count + c] * w[o * c_count + c];
        gsums[o] = dbias[o];
        gsums[outputs + o] = (of_product - s.mean * dbias[o]) * s.inverse_std;
        if (dgamma)
            dgamma[o] = gsums[outputs + o];
        if (dbeta)
            dbeta[o] = gsums[o];
    }
    return 0;
}

int reference_linear_bn_wgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *of_g = args->in[0], *w = args->in[1], *sums = args->in[2], *gamma = args->in[3];
    const double *gsums = args->in[4], *gram = args->in[5];
    const op_attr *attr = &request->node.attr;
    double *dw = args->out[0];
    int outputs = request->in[1].dim[0], c_count = columns(&request->in[1]);
    const double *x_sum = gram + (int64_t)c_count * c_count;
    for (int o = 0; o < outputs; o++) {
        channel_statistics s = statistics(sums, attr, outputs, o);
        for (int c = 0; c < c_count; c++) {
            double of_xhat = -s.mean * x_sum[c];
            for (int d = 0; d < c_count; d++)
                of_xhat += w[o * c_count + d] * gram[d * c_count + c];
            of_xhat *= s.inverse_std;
            dw[o * c_count + c] = gamma[o] * s.inverse_std *
                                  (of_g[o * c_count + c] - gsums[o] / attr->count * x_sum[c] -
                                   gsums[outputs + o] / attr->count * of_xhat);
        }
    }
    return 0;
}

size_t reference_linear_bn_workspace(const kernel_request *request)
{
    return tensor_bytes(&request->in[0]); /* g has the shape of the product */
}

int reference_linear_bn_dgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    enum { G, X, W, SUMS, GAMMA, GSUMS };
    const void *const *in = args->in;
    double *y = args->workspace;
    kernel_request r;
    TRY(product(self, request, args, X, y, &r));
    r.node.attr.relu = false;
    TRY(reference_bn_grad(self, &r,
                          &(kernel_args){.in = {y, in[SUMS], in[GAMMA], NULL, in[GSUMS], in[G]}, .out = {y}}));
    const kernel_request last = {.in = {r.in[0], request->in[W]}, .out = {request->out[0]}};
    return reference_linear_dgrad(self, &last, &(kernel_args){.in = {y, in[W]}, .out = {args->out[0]}});
}

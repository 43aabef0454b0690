/* Batch normalisation of an upsampled feature map, by making it: what the ops of the small one must agree with.
 * The workspace holds two of the large size. Nothing is kept between calls. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "reference.h"

static tensor_desc large_of(const tensor_desc *small)
{
    tensor_desc large = *small;
    large.dim[1] *= 2;
    large.dim[2] *= 2;
    return large;
}

size_t reference_upsample_bn_workspace(const kernel_request *request)
{
    tensor_desc large = large_of(&request->in[0]);
    return 2 * tensor_bytes(&large);
}

static double *second_map(const kernel_request *request, const kernel_args *args)
{
    tensor_desc large = large_of(&request->in[0]);
    return (double *)args->workspace + tensor_count(&large);
}

/* upsample2x(z) as the first feature map of the workspace. */
static int upsample(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const kernel_request r = {.in = {request->in[0]}, .out = {large_of(&request->in[0])}};
    return reference_upsample2x(self, &r, &(kernel_args){.in = {args->in[0]}, .out = {args->workspace}});
}

static int upsample_grad(const reference *self, const kernel_request *request, const double *large, double *small)
{
    const kernel_request r = {.in = {large_of(&request->in[0])}, .out = {request->in[0]}};
    return reference_upsample2x_grad(self, &r, &(kernel_args){.in = {large}, .out = {small}});
}

/* Batch normalisation's own op on the upsampled feature map, which takes the place of z. */
static int on_large_map(const reference *self, const kernel_request *request, const kernel_args *args, reference_op *op)
{
    kernel_request r = *request;
    kernel_args a = *args;
    TRY(upsample(self, request, args));
    r.in[0] = large_of(&request->in[0]);
    a.in[0] = args->workspace;
    return op(self, &r, &a);
}

int reference_upsample_bn_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    return on_large_map(self, request, args, reference_bn_sums);
}

int reference_upsample_bn(const reference *self, const kernel_request *request, const kernel_args *args)
{
    return on_large_map(self, request, args, reference_bn_normalize);
}

int reference_upsample_bn_inference(const reference *self, const kernel_request *request, const kernel_args *args)
{
    return on_large_map(self, request, args, reference_bn_inference);
}

int reference_upsample_bn_grad_sums(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const void *const *in = args->in;
    double *x = args->workspace, *g = second_map(request, args);
    kernel_request r = *request;
    r.in[0] = large_of(&request->in[0]);
    r.node.n_in = 6;
    TRY(upsample(self, request, args));
    TRY(reference_bn_grad_sums(self, &r,
                               &(kernel_args){.in = {x, in[1], in[2], in[3], NULL, in[4]},
                                              .out = {args->out[0], g, args->out[2], args->out[3]}}));
    return args->out[1] ? upsample_grad(self, request, g, args->out[1]) : 0;
}

/* bn_grad is affine in g: with g = 0 it gives all but gamma/std * g, whose gradient is gamma/std * dg. */
int reference_upsample_bn_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *sums = args->in[1], *gamma = args->in[2], *gsums = args->in[3], *dg = args->in[4];
    double *x = args->workspace, *dx = second_map(request, args), *rest = x, *dz = args->out[0];
    const op_attr *attr = &request->node.attr;
    kernel_request r = *request;
    r.in[0] = large_of(&request->in[0]);
    r.node.attr.relu = false;
    TRY(upsample(self, request, args));
    memset(dx, 0, tensor_bytes(&r.in[0]));
    TRY(reference_bn_grad(self, &r, &(kernel_args){.in = {x, sums, gamma, NULL, gsums, dx}, .out = {dx}}));
    TRY(upsample_grad(self, request, dx, rest));
    int channels = request->in[0].dim[3];
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++) {
        int c = (int)(i % channels);
        double mean = sums[c] / attr->count, variance = sums[channels + c] / attr->count - mean * mean;
        dz[i] = gamma[c] / sqrt(variance + attr->eps) * dg[i] + rest[i];
    }
    return 0;
}

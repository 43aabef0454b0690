/* Owns the way from conv2d and its gradients to convolutions.h, and to matrix products where a convolution is one.
 * Invariant: what a convolution cannot do on the way (a bias, a float32 weight gradient from 16 bits) is done by a
 * native kernel. One thread. */
#include "base/error.h"
#include "convolutions.h"
#include "cuda_backend.h"

enum { OFFSET_CONVOLUTION, OFFSET_GRADIENT, OFFSET_SUMS, OFFSET_BIAS };

static bool is_matrix_product(const op_attr *attr)
{
    return attr->kernel == 1 && attr->stride == 1 && attr->pad == 0 && attr->groups == 1;
}

static int describe(const kernel *k, cuda_convolution_kind kind, const tensor_desc *x, const tensor_desc *w,
                    const tensor_desc *y, cuda_convolution_desc *out)
{
    const op_attr *attr = &k->request.node.attr;
    CHECK(attr->groups >= 1 && w->dim[0] == y->dim[3] && w->dim[3] * attr->groups == x->dim[3], ERROR_SHAPE,
          "convolution of %d channels to %d in %d groups: the weight does not fit", x->dim[3], y->dim[3], attr->groups);
    *out = (cuda_convolution_desc){.kind = kind,
                                   .batch = x->dim[0],
                                   .height = x->dim[1],
                                   .width = x->dim[2],
                                   .channels = x->dim[3],
                                   .out_height = y->dim[1],
                                   .out_width = y->dim[2],
                                   .out_channels = y->dim[3],
                                   .kernel = attr->kernel,
                                   .stride = attr->stride,
                                   .pad = attr->pad,
                                   .groups = attr->groups,
                                   .type = kind == CUDA_CONVOLUTION_DGRAD ? y->dtype : x->dtype};
    return 0;
}

static void release(void *plan)
{
    cuda_convolution_release(plan);
}

static int add_convolution(cuda_backend *self, kernel *k, const cuda_convolution_desc *desc, size_t *workspace)
{
    cuda_convolution *convolution;
    size_t bytes = 0;
    TRY(cuda_convolution_prepare(self->convolutions, desc, &convolution, &bytes));
    k->plan = convolution;
    k->release_plan = release;
    k->offset[OFFSET_CONVOLUTION] = cuda_workspace_take(workspace, bytes);
    return 0;
}

static int forward(const kernel *k, const kernel_args *args, const void *bias)
{
    return cuda_convolution_run(k->plan, &(cuda_convolution_args){.x = kernel_in_out(args, 0),
                                                                  .w = kernel_in_out(args, 1),
                                                                  .y = args->out[0],
                                                                  .bias = bias,
                                                                  .workspace = cuda_workspace_at(args, k->offset[0])});
}

static int forward_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    return forward(k, args, args->in[2]);
}

/* The bias in the dtype of the activations, as the convolution wants it. */
static int forward_16_bit_bias_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.out[0];
    void *bias = cuda_workspace_at(args, k->offset[OFFSET_BIAS]);
    TRY(cuda_convert(self, args->in[2], y->dtype, y->dim[3], bias));
    return forward(k, args, bias);
}

static int forward_then_bias_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.out[0];
    TRY(forward(k, args, NULL));
    return cuda_add_bias(self, args->out[0], y->dtype, tensor_rows(y), y->dim[3], args->in[2]);
}

static int prepare_with_bias(cuda_backend *self, kernel *k, cuda_convolution_desc desc, size_t *workspace)
{
    desc.bias = true;
    desc.only_tensor_cores = desc.type != DTYPE_F32 || self->tf32;
    if (add_convolution(self, k, &desc, workspace) == 0) {
        if (desc.type == DTYPE_F32)
            return 0;
        k->launch = forward_16_bit_bias_launch;
        k->offset[OFFSET_BIAS] = cuda_workspace_take(workspace, (size_t)desc.out_channels * dtype_bytes(desc.type));
        return 0;
    }
    desc.bias = desc.only_tensor_cores = false;
    k->launch = forward_then_bias_launch;
    return add_convolution(self, k, &desc, workspace);
}

static int prepare_alone(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    cuda_convolution_desc desc;
    TRY(describe(k, CUDA_CONVOLUTION_FORWARD, &r->in[0], &r->in[1], &r->out[0], &desc));
    if (is_matrix_product(&r->node.attr))
        return cuda_linear_prepare(self, k, workspace);
    k->launch = forward_launch;
    if (tensor_count(&r->in[2]) > 0)
        return prepare_with_bias(self, k, desc, workspace);
    return add_convolution(self, k, &desc, workspace);
}

int cuda_conv2d_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    cuda_convolution_desc desc;
    if (tensor_count(&r->out[1]) == 0)
        return prepare_alone(self, k, workspace);
    TRY(describe(k, CUDA_CONVOLUTION_FORWARD, &r->in[0], &r->in[1], &r->out[0], &desc));
    desc.statistics = true;
    return cuda_layer_sums_prepare(self, k, &desc, prepare_alone, workspace);
}

static int dgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    return cuda_convolution_run(k->plan, &(cuda_convolution_args){.x = args->out[0],
                                                                  .w = kernel_in_out(args, 1),
                                                                  .y = kernel_in_out(args, 0),
                                                                  .workspace = cuda_workspace_at(args, k->offset[0])});
}

int cuda_conv2d_dgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    cuda_convolution_desc desc;
    if (is_matrix_product(&r->node.attr))
        return cuda_linear_dgrad_prepare(self, k, workspace);
    TRY(describe(k, CUDA_CONVOLUTION_DGRAD, &r->out[0], &r->in[1], &r->in[0], &desc));
    k->launch = dgrad_launch;
    return add_convolution(self, k, &desc, workspace);
}

static bool is_converted(const kernel_request *r)
{
    return r->out[0].dtype != r->in[0].dtype;
}

static int wgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const kernel_request *r = &k->request;
    const tensor_desc *dy = &r->in[1];
    void *dw = is_converted(r) ? cuda_workspace_at(args, k->offset[OFFSET_GRADIENT]) : args->out[0];
    if (k->plan)
        TRY(cuda_convolution_run(k->plan,
                                 &(cuda_convolution_args){.x = kernel_in_out(args, 0),
                                                          .w = dw,
                                                          .y = kernel_in_out(args, 1),
                                                          .workspace = cuda_workspace_at(args, k->offset[0])}));
    if (k->plan && is_converted(r))
        TRY(cuda_convert_to_float(self, dw, r->in[0].dtype, tensor_count(&r->out[0]), args->out[0]));
    if (!args->out[1])
        return 0;
    return cuda_column_sums(self, args->in[1], dy->dtype, tensor_rows(dy), dy->dim[3], args->out[1],
                            cuda_workspace_at(args, k->offset[OFFSET_SUMS]));
}

int cuda_conv2d_wgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *x = &r->in[0], *dy = &r->in[1], *dw = &r->out[0];
    cuda_convolution_desc desc;
    if (is_matrix_product(&r->node.attr))
        return cuda_linear_wgrad_prepare(self, k, workspace);
    k->launch = wgrad_launch;
    if (tensor_count(dw) > 0) {
        TRY(describe(k, CUDA_CONVOLUTION_WGRAD, x, dw, dy, &desc));
        TRY(add_convolution(self, k, &desc, workspace));
    }
    if (tensor_count(dw) > 0 && is_converted(r))
        k->offset[OFFSET_GRADIENT] = cuda_workspace_take(workspace, (size_t)tensor_count(dw) * dtype_bytes(x->dtype));
    if (tensor_count(&r->out[1]) > 0)
        k->offset[OFFSET_SUMS] = cuda_workspace_take(workspace, cuda_column_sums_bytes(tensor_rows(dy), dy->dim[3]));
    return 0;
}

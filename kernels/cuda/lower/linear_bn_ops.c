/* Lowers linear_bn and its gradients to matrix products and the native kernels of linear_bn.h. One thread. */
#include "base/error.h"
#include "linear_bn.h"
#include "product_plan.h"

enum { OFFSET_WEIGHT = OFFSET_OWN, OFFSET_FROM_X, OFFSET_BIAS, OFFSET_TABLE, OFFSET_SUMS };

static int columns(const tensor_desc *w)
{
    return (int)(tensor_count(w) / w->dim[0]);
}

/* moments = x^T x, then the sums of x. */
static int moments_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const product_plan *p = k->plan;
    const tensor_desc *x = &k->request.in[0];
    float *gram = args->out[0], *x_sum = gram + (int64_t)x->dim[3] * x->dim[3];
    TRY(product_plan_run(k, args, 0, args->in[0], args->in[0], gram, p->extra_after ? NULL : x_sum));
    if (!p->extra_after)
        return 0;
    return cuda_column_sums(self, args->in[0], x->dtype, tensor_rows(x), x->dim[3], x_sum,
                            cuda_workspace_at(args, k->offset[OFFSET_SUMS]));
}

int cuda_channel_moments_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    enum { VECTOR_ALIGNMENT = 16 };
    const tensor_desc *x = &k->request.in[0];
    int64_t rows = tensor_rows(x), c = x->dim[3];
    product_plan *p = NULL;
    cuda_product_desc desc = {.m = c, .n = c, .k = rows, .lda = c, .ldb = c, .ldc = c, .transpose_a = true};
    desc.type = x->dtype;
    desc.result = k->request.out[0].dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, moments_launch, &p));
    if ((size_t)(c * c) * sizeof(float) % VECTOR_ALIGNMENT == 0)
        TRY(product_plan_add_with(self, k, desc, CUDA_PRODUCT_ROW_SUMS, workspace));
    else
        TRY(product_plan_add(self, k, 0, &desc, workspace));
    p->extra_after = p->extra_after || (size_t)(c * c) * sizeof(float) % VECTOR_ALIGNMENT != 0;
    if (p->extra_after)
        k->offset[OFFSET_SUMS] = cuda_workspace_take(workspace, cuda_column_sums_bytes(rows, c));
    return 0;
}

static linear_bn_layer layer_of(const kernel *k, const tensor_desc *w)
{
    const op_attr *attr = &k->request.node.attr;
    return (linear_bn_layer){.outputs = w->dim[0], .channels = columns(w), .count = attr->count, .eps = attr->eps};
}

static int linear_bn_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const product_plan *p = k->plan;
    const tensor_desc *y = &k->request.out[0];
    linear_bn_layer l = layer_of(k, &k->request.in[1]);
    void *weight = cuda_workspace_at(args, k->offset[OFFSET_WEIGHT]);
    void *bias = cuda_workspace_at(args, k->offset[OFFSET_BIAS]);
    l.w = args->in[1];
    l.sums = args->in[2];
    l.gamma = args->in[3];
    l.beta = args->in[4];
    TRY(cuda_linear_bn_fold(self, &l, weight, bias));
    TRY(product_plan_run(k, args, 0, args->in[0], weight, args->out[0], p->extra_after ? NULL : bias));
    if (!p->extra_after)
        return 0;
    return cuda_bias_relu(self, args->out[0], (int)tensor_row_stride(y), tensor_rows(y), y->dim[3], bias,
                          k->request.node.attr.relu);
}

/* y may be the second of two tensors that lie row by row beside each other (graph/placement.h). */
int cuda_linear_bn_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *x = &r->in[0], *w = &r->in[1], *y = &r->out[0];
    int64_t rows = tensor_rows(x), i = x->dim[3], o = w->dim[0];
    product_plan *p = NULL;
    CHECK(columns(w) == i && tensor_count(y) == rows * o, ERROR_SHAPE, "linear_bn: weight or output does not fit");
    cuda_product_desc desc = {.m = rows, .n = o, .k = i, .lda = i, .ldb = i, .transpose_b = true};
    desc.ldc = tensor_row_stride(y);
    desc.type = desc.result = x->dtype;
    desc.alignment = product_column_alignment(desc.ldc - o, x->dtype);
    TRY(product_plan_new(k, linear_bn_launch, &p));
    k->offset[OFFSET_WEIGHT] = cuda_workspace_take(workspace, (size_t)(o * i) * dtype_bytes(x->dtype));
    k->offset[OFFSET_BIAS] = cuda_workspace_take(workspace, (size_t)o * dtype_bytes(x->dtype));
    return product_plan_add_with(self, k, desc, r->node.attr.relu ? CUDA_PRODUCT_BIAS_RELU : CUDA_PRODUCT_BIAS,
                                 workspace);
}

/* dx = x from_x + constant, then + g from_g. */
static int linear_bn_dgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const product_plan *p = k->plan;
    const tensor_desc *dx = &k->request.out[0];
    linear_bn_layer l = layer_of(k, &k->request.in[2]);
    void *from_g = cuda_workspace_at(args, k->offset[OFFSET_WEIGHT]);
    void *from_x = cuda_workspace_at(args, k->offset[OFFSET_FROM_X]);
    void *constant = cuda_workspace_at(args, k->offset[OFFSET_BIAS]);
    l.w = args->in[2];
    l.sums = args->in[3];
    l.gamma = args->in[4];
    l.gsums = args->in[5];
    TRY(cuda_linear_bn_fold_gradient(self, &l, from_g, from_x, constant,
                                     cuda_workspace_at(args, k->offset[OFFSET_TABLE])));
    TRY(product_plan_run(k, args, 0, args->in[1], from_x, args->out[0], p->extra_after ? NULL : constant));
    TRY(product_plan_run(k, args, 1, args->in[0], from_g, args->out[0], NULL));
    if (!p->extra_after)
        return 0;
    return cuda_bias_relu(self, args->out[0], dx->dim[3], tensor_rows(dx), dx->dim[3], constant, false);
}

int cuda_linear_bn_dgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *g = &r->in[0], *w = &r->in[2];
    int64_t rows = tensor_rows(g), o = g->dim[3], i = r->out[0].dim[3];
    size_t element = dtype_bytes(g->dtype);
    product_plan *p = NULL;
    CHECK(columns(w) == i && w->dim[0] == o, ERROR_SHAPE, "linear_bn_dgrad: the weight does not fit");
    cuda_product_desc from_x = {.m = rows, .n = i, .k = i, .lda = i, .ldb = i, .ldc = i};
    from_x.type = from_x.result = g->dtype;
    from_x.alignment = TENSOR_ALIGNMENT;
    cuda_product_desc from_g = from_x;
    from_g.k = from_g.lda = o;
    from_g.accumulate = true;
    TRY(product_plan_new(k, linear_bn_dgrad_launch, &p));
    k->offset[OFFSET_WEIGHT] = cuda_workspace_take(workspace, (size_t)(o * i) * element);
    k->offset[OFFSET_FROM_X] = cuda_workspace_take(workspace, (size_t)(i * i) * element);
    k->offset[OFFSET_BIAS] = cuda_workspace_take(workspace, (size_t)i * element);
    k->offset[OFFSET_TABLE] = cuda_workspace_take(workspace, 2 * (size_t)o * sizeof(float));
    TRY(product_plan_add_with(self, k, from_x, CUDA_PRODUCT_BIAS, workspace));
    return product_plan_add(self, k, 1, &from_g, workspace);
}

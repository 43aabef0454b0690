/* Owns the way from linear, concat_linear, their gradients and 1x1 convolutions to matrix products. One thread. */
#include "base/error.h"
#include "convolutions.h"
#include "product_plan.h"

enum { OFFSET_SUMS = OFFSET_OWN, OFFSET_BIAS };

/* y[rows, o] = x[rows, i] w[o, i]^T. A product wants its bias in the dtype of y. */
static int linear_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const product_plan *p = k->plan;
    const tensor_desc *y = &k->request.out[0];
    void *bias = kernel_in_out(args, 2), *given = p->extra_after ? NULL : bias;
    if (given && y->dtype != DTYPE_F32) {
        given = cuda_workspace_at(args, k->offset[OFFSET_BIAS]);
        TRY(cuda_convert(self, args->in[2], y->dtype, y->dim[3], given));
    }
    TRY(product_plan_run(k, args, 0, args->in[0], args->in[1], args->out[0], given));
    return p->extra_after ? cuda_add_bias(self, args->out[0], y->dtype, tensor_rows(y), y->dim[3], bias) : 0;
}

int cuda_linear_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *x = &r->in[0], *w = &r->in[1], *y = &r->out[0];
    int64_t rows = tensor_rows(x), i = x->dim[3], o = w->dim[0];
    product_plan *p = NULL;
    CHECK(tensor_count(w) == o * i && tensor_count(y) == rows * o, ERROR_SHAPE,
          "linear: weight or output does not fit %lld columns", (long long)i);
    cuda_product_desc desc = {.m = rows, .n = o, .k = i, .lda = i, .ldb = i, .ldc = o, .transpose_b = true};
    desc.type = desc.result = x->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, linear_launch, &p));
    bool bias = tensor_count(&r->in[2]) > 0;
    if (bias && y->dtype != DTYPE_F32)
        k->offset[OFFSET_BIAS] = cuda_workspace_take(workspace, (size_t)o * dtype_bytes(y->dtype));
    return product_plan_add_with(self, k, desc, bias ? CUDA_PRODUCT_BIAS : CUDA_PRODUCT_PLAIN, workspace);
}

/* dx[rows, i] = dy[rows, o] w[o, i]. */
static int linear_dgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    return product_plan_run(k, args, 0, args->in[0], args->in[1], args->out[0], NULL);
}

int cuda_linear_dgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *dy = &r->in[0], *w = &r->in[1], *dx = &r->out[0];
    int64_t rows = tensor_rows(dy), o = dy->dim[3], i = dx->dim[3];
    product_plan *p = NULL;
    CHECK(tensor_count(w) == o * i && tensor_count(dx) == rows * i, ERROR_SHAPE,
          "linear_dgrad: weight or output does not fit %lld columns", (long long)o);
    cuda_product_desc desc = {.m = rows, .n = i, .k = o, .lda = o, .ldb = i, .ldc = i};
    desc.type = desc.result = dy->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, linear_dgrad_launch, &p));
    return product_plan_add(self, k, 0, &desc, workspace);
}

/* dw[o, i] = dy[rows, o]^T x[rows, i]; dbias = the sums of dy's columns. */
static int linear_wgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const product_plan *p = k->plan;
    const tensor_desc *dy = &k->request.in[1];
    if (p->product[0])
        TRY(product_plan_run(k, args, 0, args->in[1], args->in[0], args->out[0], p->extra_after ? NULL : args->out[1]));
    if (!p->extra_after)
        return 0;
    return cuda_column_sums(self, args->in[1], dy->dtype, tensor_rows(dy), dy->dim[3], args->out[1],
                            cuda_workspace_at(args, k->offset[OFFSET_SUMS]));
}

int cuda_linear_wgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *x = &r->in[0], *dy = &r->in[1], *dw = &r->out[0];
    int64_t rows = tensor_rows(x), i = x->dim[3], o = dy->dim[3];
    bool dbias = tensor_count(&r->out[1]) > 0;
    product_plan *p = NULL;
    CHECK(rows == tensor_rows(dy), ERROR_SHAPE, "linear_wgrad: x and dy have different rows");
    cuda_product_desc desc = {.m = o, .n = i, .k = rows, .lda = o, .ldb = i, .ldc = i, .transpose_a = true};
    desc.type = x->dtype;
    desc.result = dw->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, linear_wgrad_launch, &p));
    if (tensor_count(dw) > 0)
        TRY(product_plan_add_with(self, k, desc, dbias ? CUDA_PRODUCT_ROW_SUMS : CUDA_PRODUCT_PLAIN, workspace));
    else
        p->extra_after = dbias;
    if (p->extra_after)
        k->offset[OFFSET_SUMS] = cuda_workspace_take(workspace, cuda_column_sums_bytes(rows, o));
    return 0;
}

/* ---- two operands ---- */

/* With one product for both they have to lie beside each other. */
static int check_beside(const product_plan *p, const void *a, const void *b, uint8_t type)
{
    return p->product[1] ? 0 : product_check_beside(a, b, p->first_columns, type);
}

/* y = a w[:, :Ka]^T, then + b w[:, Ka:]^T. */
static int concat_linear_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const product_plan *p = k->plan;
    uint8_t type = k->request.in[0].dtype;
    TRY(check_beside(p, args->in[0], args->in[1], type));
    TRY(product_plan_run(k, args, 0, args->in[0], args->in[2], args->out[0], NULL));
    if (!p->product[1])
        return 0;
    return product_plan_run(k, args, 1, args->in[1], product_column(args->in[2], p->first_columns, type), args->out[0],
                            NULL);
}

static int prepare_alone(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *a = &r->in[0], *b = &r->in[1], *w = &r->in[2];
    int64_t rows = tensor_rows(a), ka = a->dim[3], kb = b->dim[3], o = w->dim[0];
    bool one = product_is_beside(a, b);
    product_plan *p = NULL;
    CHECK(tensor_count(w) == o * (ka + kb) && rows == tensor_rows(b), ERROR_SHAPE,
          "concat_linear: a, b and the weight do not fit");
    cuda_product_desc desc = {
        .m = rows, .n = o, .k = ka, .lda = tensor_row_stride(a), .ldb = ka + kb, .ldc = o, .transpose_b = true};
    desc.type = desc.result = a->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    desc.k += one ? kb : 0;
    TRY(product_plan_new(k, concat_linear_launch, &p));
    p->first_columns = ka;
    TRY(product_plan_add(self, k, 0, &desc, workspace));
    if (one)
        return 0;
    desc.k = kb;
    desc.lda = tensor_row_stride(b);
    desc.accumulate = true;
    desc.alignment = product_column_alignment(ka, desc.type);
    return product_plan_add(self, k, 1, &desc, workspace);
}

/* With the sums of y. Operands beside each other are one tensor, of which this is a 1x1 convolution. */
static int concat_linear_sums_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const tensor_desc *a = &k->request.in[0], *b = &k->request.in[1], *y = &k->request.out[0];
    const cuda_convolution_desc desc = {.kind = CUDA_CONVOLUTION_FORWARD,
                                        .batch = a->dim[0],
                                        .height = a->dim[1],
                                        .width = a->dim[2],
                                        .channels = a->dim[3] + b->dim[3],
                                        .out_height = y->dim[1],
                                        .out_width = y->dim[2],
                                        .out_channels = y->dim[3],
                                        .kernel = 1,
                                        .stride = 1,
                                        .groups = 1,
                                        .type = a->dtype,
                                        .statistics = true};
    return cuda_layer_sums_prepare(self, k, product_is_beside(a, b) ? &desc : NULL, prepare_alone, workspace);
}

int cuda_concat_linear_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    bool sums = tensor_count(&k->request.out[1]) > 0;
    return sums ? concat_linear_sums_prepare(self, k, workspace) : prepare_alone(self, k, workspace);
}

/* da = dy w[:, :Ka], db = dy w[:, Ka:]. */
static int concat_linear_dgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const product_plan *p = k->plan;
    uint8_t type = k->request.in[0].dtype;
    if (args->out[0] && args->out[1])
        TRY(check_beside(p, args->out[0], args->out[1], type));
    if (p->product[0])
        TRY(product_plan_run(k, args, 0, args->in[0], args->in[1], args->out[0], NULL));
    if (!p->product[1])
        return 0;
    return product_plan_run(k, args, 1, args->in[0], product_column(args->in[1], p->first_columns, type), args->out[1],
                            NULL);
}

int cuda_concat_linear_dgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *dy = &r->in[0], *da = &r->out[0], *db = &r->out[1];
    int64_t rows = tensor_rows(dy), o = dy->dim[3], columns = tensor_count(&r->in[1]) / o;
    bool want_a = tensor_count(da) > 0, want_b = tensor_count(db) > 0, one = want_a && product_is_beside(da, db);
    int64_t ka = want_a ? da->dim[3] : columns - db->dim[3];
    product_plan *p = NULL;
    CHECK(ka > 0 && ka < columns && (!want_b || columns - ka == db->dim[3]), ERROR_SHAPE,
          "concat_linear_dgrad: da, db and the weight do not fit");
    cuda_product_desc desc = {.m = rows, .n = one ? columns : ka, .k = o, .lda = o, .ldb = columns};
    desc.ldc = tensor_row_stride(da);
    desc.type = desc.result = dy->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, concat_linear_dgrad_launch, &p));
    p->first_columns = ka;
    if (want_a)
        TRY(product_plan_add(self, k, 0, &desc, workspace));
    desc.n = columns - ka;
    desc.ldc = tensor_row_stride(db);
    desc.alignment = product_column_alignment(ka, desc.type);
    return want_b && !one ? product_plan_add(self, k, 1, &desc, workspace) : 0;
}

/* dw[:, :Ka] = dy^T a, dw[:, Ka:] = dy^T b. */
static int concat_linear_wgrad_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const product_plan *p = k->plan;
    TRY(check_beside(p, args->in[0], args->in[1], k->request.in[0].dtype));
    TRY(product_plan_run(k, args, 0, args->in[2], args->in[0], args->out[0], NULL));
    if (!p->product[1])
        return 0;
    void *second = product_column(args->out[0], p->first_columns, k->request.out[0].dtype);
    return product_plan_run(k, args, 1, args->in[2], args->in[1], second, NULL);
}

int cuda_concat_linear_wgrad_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    const tensor_desc *a = &r->in[0], *b = &r->in[1], *dy = &r->in[2], *dw = &r->out[0];
    int64_t rows = tensor_rows(dy), ka = a->dim[3], kb = b->dim[3], o = dy->dim[3];
    bool one = product_is_beside(a, b);
    product_plan *p = NULL;
    CHECK(tensor_rows(a) == rows && tensor_rows(b) == rows && tensor_count(dw) == o * (ka + kb), ERROR_SHAPE,
          "concat_linear_wgrad: a, b, dy and the gradient do not fit");
    cuda_product_desc desc = {
        .m = o, .n = one ? ka + kb : ka, .k = rows, .lda = o, .ldc = ka + kb, .transpose_a = true};
    desc.ldb = tensor_row_stride(a);
    desc.type = dy->dtype;
    desc.result = dw->dtype;
    desc.alignment = TENSOR_ALIGNMENT;
    TRY(product_plan_new(k, concat_linear_wgrad_launch, &p));
    p->first_columns = ka;
    TRY(product_plan_add(self, k, 0, &desc, workspace));
    if (one)
        return 0;
    desc.n = kb;
    desc.ldb = tensor_row_stride(b);
    desc.alignment = product_column_alignment(ka, desc.result);
    return product_plan_add(self, k, 1, &desc, workspace);
}

/* Linear layers: linear, concat_linear and their gradients as matrix products. A concatenated tensor never exists: two
 * products share a chunk of rows while it is in the cache. */
#include "base/error.h"
#include "product.h"

static int linear_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *packed;
    TRY(product_pack(self, k, 0, args, args->in[1], &packed));
    return product_run(self, k, 0, args, args->in[0], packed, args->in[2], args->out[0]);
}

int linear_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    product p = {.rows = tensor_rows(&r->in[0]), .k = r->in[0].dim[3], .n = r->in[1].dim[0]};
    CHECK(tensor_count(&r->in[1]) == p.k * p.n && tensor_count(&r->out[0]) == p.rows * p.n, ERROR_SHAPE,
          "linear: weight or output does not fit %lld columns", (long long)p.k);
    p.stride_k = 1;
    p.stride_n = p.k;
    p.bias = tensor_count(&r->in[2]) > 0;
    p.pack = product_worth_packing(p.rows, p.k, p.n);
    k->launch = linear_launch;
    return product_prepare(self, k, 0, &p, workspace);
}

int linear_dgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    product p = {.rows = tensor_rows(&r->in[0]), .k = r->in[0].dim[3], .n = r->out[0].dim[3]};
    CHECK(tensor_count(&r->in[1]) == p.k * p.n && tensor_count(&r->out[0]) == p.rows * p.n, ERROR_SHAPE,
          "linear_dgrad: weight or output does not fit %lld columns", (long long)p.k);
    p.stride_k = p.n;
    p.stride_n = 1;
    p.pack = product_worth_packing(p.rows, p.k, p.n);
    k->launch = linear_launch; /* the third input is absent */
    return product_prepare(self, k, 0, &p, workspace);
}

static int linear_wgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0], *dy = &k->request.in[1];
    int64_t rows = tensor_rows(x), o = dy->dim[3], i = x->dim[3];
    if (args->out[0])
        TRY(weight_gradient(args->in[0], args->in[1], rows, o, i, args->out[0], i));
    float *dbias = args->out[1];
    if (dbias) {
        double *sums = workspace_at(args, k->offset[1]);
        column_sums(self, args->in[1], rows, o, false, sums, workspace_at(args, k->offset[0]));
        for (int64_t c = 0; c < o; c++)
            dbias[c] = (float)sums[c];
    }
    return 0;
}

int linear_wgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    CHECK(tensor_rows(&r->in[0]) == tensor_rows(&r->in[1]), ERROR_SHAPE, "linear_wgrad: x and dy have different rows");
    if (tensor_count(&r->out[1]) > 0) {
        k->offset[0] = workspace_take(workspace, column_sums_bytes(self, r->in[1].dim[3]));
        k->offset[1] = workspace_take(workspace, (size_t)r->in[1].dim[3] * sizeof(double));
    }
    k->launch = linear_wgrad_launch;
    return 0;
}

static int concat_linear_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const kernel_request *r = &k->request;
    int64_t rows = tensor_rows(&r->in[0]), ka = r->in[0].dim[3], kb = r->in[1].dim[3], o = r->out[0].dim[3];
    const float *a = args->in[0], *b = args->in[1], *w = args->in[2], *wa, *wb;
    float *y = args->out[0];
    TRY(product_pack(self, k, 0, args, w, &wa));
    TRY(product_pack(self, k, PRODUCT_SECOND, args, w + ka, &wb));
    for (int64_t row = 0; row < rows; row += k->chunk) {
        TRY(product_run(self, k, 0, args, a + row * ka, wa, NULL, y + row * o));
        TRY(product_run(self, k, PRODUCT_SECOND, args, b + row * kb, wb, NULL, y + row * o));
    }
    return 0;
}

int concat_linear_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    int64_t ka = r->in[0].dim[3], kb = r->in[1].dim[3], o = r->in[2].dim[0];
    CHECK(tensor_count(&r->in[2]) == o * (ka + kb) && tensor_rows(&r->in[0]) == tensor_rows(&r->in[1]), ERROR_SHAPE,
          "concat_linear: a, b and the weight do not fit");
    k->chunk = product_chunk_rows(tensor_rows(&r->in[0]));
    product a = {.rows = k->chunk, .k = ka, .n = o, .stride_k = 1, .stride_n = ka + kb, .pack = true};
    product b = {.rows = k->chunk, .k = kb, .n = o, .stride_k = 1, .stride_n = ka + kb, .pack = true};
    b.accumulate = true;
    k->launch = concat_linear_launch;
    TRY(product_prepare(self, k, 0, &a, workspace));
    return product_prepare(self, k, PRODUCT_SECOND, &b, workspace);
}

/* Columns of w that belong to da, which may be unwanted: then they are what db leaves. */
static int64_t first_columns(const kernel_request *r)
{
    int64_t columns = tensor_count(&r->in[1]) / r->in[0].dim[3];
    return tensor_count(&r->out[0]) > 0 ? r->out[0].dim[3] : columns - r->out[1].dim[3];
}

static int concat_linear_dgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const kernel_request *r = &k->request;
    int64_t rows = tensor_rows(&r->in[0]), o = r->in[0].dim[3], ka = first_columns(r), kb = r->out[1].dim[3];
    const float *dy = args->in[0], *w = args->in[1], *wa = NULL, *wb = NULL;
    float *da = args->out[0], *db = args->out[1];
    if (da)
        TRY(product_pack(self, k, 0, args, w, &wa));
    if (db)
        TRY(product_pack(self, k, PRODUCT_SECOND, args, w + ka, &wb));
    for (int64_t row = 0; row < rows; row += k->chunk) {
        if (da)
            TRY(product_run(self, k, 0, args, dy + row * o, wa, NULL, da + row * ka));
        if (db)
            TRY(product_run(self, k, PRODUCT_SECOND, args, dy + row * o, wb, NULL, db + row * kb));
    }
    return 0;
}

int concat_linear_dgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    int64_t o = r->in[0].dim[3], columns = tensor_count(&r->in[1]) / o;
    int64_t ka = first_columns(r), kb = columns - ka;
    bool want_b = tensor_count(&r->out[1]) > 0;
    CHECK(ka > 0 && kb > 0 && (!want_b || kb == r->out[1].dim[3]), ERROR_SHAPE,
          "concat_linear_dgrad: da, db and the weight do not fit");
    k->chunk = product_chunk_rows(tensor_rows(&r->in[0]));
    product a = {.rows = k->chunk, .k = o, .n = ka, .stride_k = columns, .stride_n = 1, .pack = true};
    product b = {.rows = k->chunk, .k = o, .n = kb, .stride_k = columns, .stride_n = 1, .pack = true};
    k->launch = concat_linear_dgrad_launch;
    if (tensor_count(&r->out[0]) > 0)
        TRY(product_prepare(self, k, 0, &a, workspace));
    return want_b ? product_prepare(self, k, PRODUCT_SECOND, &b, workspace) : 0;
}

static int concat_linear_wgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const kernel_request *r = &k->request;
    int64_t rows = tensor_rows(&r->in[0]), ka = r->in[0].dim[3], kb = r->in[1].dim[3], o = r->in[2].dim[3];
    const float *dy = args->in[2];
    float *dw = args->out[0];
    TRY(weight_gradient(args->in[0], dy, rows, o, ka, dw, ka + kb));
    return weight_gradient(args->in[1], dy, rows, o, kb, dw + ka, ka + kb);
}

int concat_linear_wgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    (void)workspace;
    const kernel_request *r = &k->request;
    CHECK(tensor_rows(&r->in[0]) == tensor_rows(&r->in[2]) && tensor_rows(&r->in[1]) == tensor_rows(&r->in[2]),
          ERROR_SHAPE, "concat_linear_wgrad: a, b and dy have different rows");
    k->launch = concat_linear_wgrad_launch;
    return 0;
}

/* Matrix products: linear, concat_linear, 1x1 convolutions and their gradients.
 *
 * Products with a weight on the right go through oneDNN's matmul, the weight packed first where there are
 * rows enough to pay for it. Weight gradients (both operands are activations, the long side is summed
 * over) go through dnnl_sgemm, which is faster there. A concatenated tensor never exists: two products
 * share a chunk of rows while it is in the cache. */
#include "base/error.h"
#include "cpu.h"

#include <string.h>

/* c[rows, n] = a[rows, k] b, with b(k, n) at k*stride_k + n*stride_n; all else is dense. */
typedef struct {
    int64_t rows, k, n;
    int64_t stride_k, stride_n;
    bool bias, accumulate, pack;
} product;

/* A product takes two calls of the kernel: the matmul, and the reorder that packs b (perhaps none). */
enum { MATMUL, REORDER, SECOND };

/* Rows of which a chunk of every operand stays in the cache, for products that share one. */
enum { CHUNK_ROWS = 1024 };

static int matmul_create(const cpu_backend *self, const product *p, onednn_call *matmul, onednn_call *reorder)
{
    static const int id[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    int64_t dim_a[] = {p->rows, p->k}, dim_b[] = {p->k, p->n}, dim_c[] = {p->rows, p->n}, dim_bias[] = {1, p->n};
    int64_t stride_a[] = {p->k, 1}, stride_b[] = {p->stride_k, p->stride_n}, stride_c[] = {p->n, 1};
    dnnl_memory_desc_t a, b, plain, c, bias;
    dnnl_matmul_desc_t desc;
    TRY(onednn_strided(&a, 2, dim_a, stride_a));
    TRY(onednn_strided(&plain, 2, dim_b, stride_b));
    TRY(onednn_strided(&c, 2, dim_c, stride_c));
    TRY(onednn_strided(&bias, 2, dim_bias, stride_c));
    b = plain;
    if (p->pack)
        TRY(onednn_any(&b, 2, dim_b));
    TRY(onednn_check(dnnl_matmul_desc_init(&desc, &a, &b, p->bias ? &bias : NULL, &c), "matmul"));

    dnnl_primitive_attr_t attribute;
    dnnl_primitive_desc_t primitive = NULL;
    TRY(onednn_attribute(&attribute, p->accumulate));
    int code = onednn_check(dnnl_primitive_desc_create(&primitive, &desc, attribute, self->engine, NULL), "matmul");
    dnnl_primitive_attr_destroy(attribute);
    if (code < 0)
        return code;
    code = onednn_call_create(matmul, self->engine, primitive, p->bias ? 4 : 3, id);
    if (code == 0)
        code = onednn_reorder_create(reorder, self->engine, &plain,
                                     dnnl_primitive_desc_query_md(primitive, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(primitive);
    return code;
}

/* Makes the product in calls `slot` (matmul) and `slot` + 1 (reorder) and takes its workspace. */
static int product_prepare(const cpu_backend *self, kernel *k, int slot, const product *p, size_t *workspace)
{
    onednn_call *matmul = &k->call[slot + MATMUL], *reorder = &k->call[slot + REORDER];
    TRY(matmul_create(self, p, matmul, reorder));
    if (reorder->primitive) {
        const dnnl_memory_desc_t *packed;
        TRY(onednn_check(dnnl_memory_get_memory_desc(reorder->arg[1].memory, &packed), "packed weight"));
        k->offset[slot + REORDER] = workspace_take(workspace, dnnl_memory_desc_get_size(packed));
    }
    size_t scratch = matmul->scratch_bytes > reorder->scratch_bytes ? matmul->scratch_bytes : reorder->scratch_bytes;
    k->offset[slot + MATMUL] = workspace_take(workspace, scratch);
    return 0;
}

/* The right operand as the matmul wants it: packed into the workspace, or as it is. */
static int product_pack(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *b,
                        const float **packed)
{
    *packed = b;
    if (!k->call[slot + REORDER].primitive)
        return 0;
    *packed = workspace_at(args, k->offset[slot + REORDER]);
    const void *buffer[] = {b, *packed};
    return onednn_call_run(&k->call[slot + REORDER], self->stream, buffer,
                           workspace_at(args, k->offset[slot + MATMUL]));
}

static int product_run(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *a,
                       const float *b, const float *bias, float *c)
{
    const void *buffer[] = {a, b, c, bias};
    return onednn_call_run(&k->call[slot + MATMUL], self->stream, buffer, workspace_at(args, k->offset[slot + MATMUL]));
}

/* Packing reads and writes the weight once: worth it when many rows use it. */
static bool worth_packing(int64_t rows, int64_t k, int64_t n)
{
    return rows >= 2 * (k > n ? k : n);
}

/* The largest divisor of `rows` up to CHUNK_ROWS; all rows when only small ones divide. */
static int64_t chunk_rows(int64_t rows)
{
    for (int64_t chunk = CHUNK_ROWS; chunk >= CHUNK_ROWS / 8; chunk--)
        if (rows % chunk == 0)
            return chunk;
    return rows;
}

/* dw[o, i] = sum over the rows of dy[row, o] * x[row, i], at columns of a dw of `stride` columns. */
static int weight_gradient(const float *x, const float *dy, int64_t rows, int64_t o, int64_t i, float *dw,
                           int64_t stride)
{
    return onednn_check(dnnl_sgemm('T', 'N', o, i, rows, 1.0F, dy, o, x, i, 0.0F, dw, stride), "sgemm");
}

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
    p.pack = worth_packing(p.rows, p.k, p.n);
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
    p.pack = worth_packing(p.rows, p.k, p.n);
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
    TRY(product_pack(self, k, SECOND, args, w + ka, &wb));
    for (int64_t row = 0; row < rows; row += k->chunk) {
        TRY(product_run(self, k, 0, args, a + row * ka, wa, NULL, y + row * o));
        TRY(product_run(self, k, SECOND, args, b + row * kb, wb, NULL, y + row * o));
    }
    return 0;
}

int concat_linear_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    int64_t ka = r->in[0].dim[3], kb = r->in[1].dim[3], o = r->in[2].dim[0];
    CHECK(tensor_count(&r->in[2]) == o * (ka + kb) && tensor_rows(&r->in[0]) == tensor_rows(&r->in[1]), ERROR_SHAPE,
          "concat_linear: a, b and the weight do not fit");
    k->chunk = chunk_rows(tensor_rows(&r->in[0]));
    product a = {.rows = k->chunk, .k = ka, .n = o, .stride_k = 1, .stride_n = ka + kb, .pack = true};
    product b = {.rows = k->chunk, .k = kb, .n = o, .stride_k = 1, .stride_n = ka + kb, .pack = true};
    b.accumulate = true;
    k->launch = concat_linear_launch;
    TRY(product_prepare(self, k, 0, &a, workspace));
    return product_prepare(self, k, SECOND, &b, workspace);
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
        TRY(product_pack(self, k, SECOND, args, w + ka, &wb));
    for (int64_t row = 0; row < rows; row += k->chunk) {
        if (da)
            TRY(product_run(self, k, 0, args, dy + row * o, wa, NULL, da + row * ka));
        if (db)
            TRY(product_run(self, k, SECOND, args, dy + row * o, wb, NULL, db + row * kb));
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
    k->chunk = chunk_rows(tensor_rows(&r->in[0]));
    product a = {.rows = k->chunk, .k = o, .n = ka, .stride_k = columns, .stride_n = 1, .pack = true};
    product b = {.rows = k->chunk, .k = o, .n = kb, .stride_k = columns, .stride_n = 1, .pack = true};
    k->launch = concat_linear_dgrad_launch;
    if (tensor_count(&r->out[0]) > 0)
        TRY(product_prepare(self, k, 0, &a, workspace));
    return want_b ? product_prepare(self, k, SECOND, &b, workspace) : 0;
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

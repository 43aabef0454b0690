/* Matrix products through oneDNN.
 *
 * Products with a weight on the right go through oneDNN's matmul, the weight packed first where there are
 * rows enough to pay for it. Weight gradients (both operands are activations, the long side is summed
 * over) go through dnnl_sgemm, which is faster there. Nothing is kept between calls but the primitives. */
#include "product.h"
#include "base/error.h"

/* Rows of which a chunk of every operand stays in the cache, for products that share one. */
enum { CHUNK_ROWS = 1024 };

/* The layouts of a product; `packed` is the weight's as the matmul takes it. */
typedef struct {
    onednn_layout a, plain, packed, c, bias;
} product_layouts;

static int describe_operands(product_layouts *l, const product *p)
{
    int64_t dim_a[] = {p->rows, p->k}, dim_b[] = {p->k, p->n}, dim_c[] = {p->rows, p->n}, dim_bias[] = {1, p->n};
    int64_t stride_a[] = {p->k, 1}, stride_b[] = {p->stride_k, p->stride_n}, stride_c[] = {p->n, 1};
    TRY(onednn_strided(&l->a, 2, dim_a, stride_a));
    TRY(onednn_strided(&l->plain, 2, dim_b, stride_b));
    TRY(onednn_strided(&l->c, 2, dim_c, stride_c));
    TRY(onednn_strided(&l->bias, 2, dim_bias, stride_c));
    return p->pack ? onednn_any(&l->packed, 2, dim_b) : onednn_strided(&l->packed, 2, dim_b, stride_b);
}

static int create_calls(const cpu_backend *self, const product *p, const product_layouts *l, onednn_call *matmul,
                        onednn_call *reorder)
{
    static const int id[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    const onednn_matmul m = {.a = l->a, .b = l->packed, .c = l->c, .bias = p->bias ? l->bias : NULL};
    dnnl_primitive_desc_t desc;
    TRY(onednn_matmul_desc(&desc, self->engine, &m, p->accumulate, p->relu));
    int code = onednn_call_create(matmul, self->engine, desc, p->bias ? 4 : 3, id);
    if (code == 0)
        code = onednn_reorder_create(reorder, self->engine, l->plain,
                                     dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(desc);
    return code;
}

static int matmul_create(const cpu_backend *self, const product *p, onednn_call *matmul, onednn_call *reorder)
{
    product_layouts l = {0};
    int code = describe_operands(&l, p);
    if (code == 0)
        code = create_calls(self, p, &l, matmul, reorder);
    onednn_layout_destroy(l.a);
    onednn_layout_destroy(l.plain);
    onednn_layout_destroy(l.packed);
    onednn_layout_destroy(l.c);
    onednn_layout_destroy(l.bias);
    return code;
}

int product_prepare(const cpu_backend *self, kernel *k, int slot, const product *p, size_t *workspace)
{
    onednn_call *matmul = &k->call[slot + PRODUCT_MATMUL], *reorder = &k->call[slot + PRODUCT_REORDER];
    TRY(matmul_create(self, p, matmul, reorder));
    if (reorder->primitive) {
        const_onednn_layout packed;
        TRY(onednn_check(dnnl_memory_get_memory_desc(reorder->arg[1].memory, &packed), "packed weight"));
        k->offset[slot + PRODUCT_REORDER] = workspace_take(workspace, dnnl_memory_desc_get_size(packed));
    }
    size_t scratch = matmul->scratch_bytes > reorder->scratch_bytes ? matmul->scratch_bytes : reorder->scratch_bytes;
    k->offset[slot + PRODUCT_MATMUL] = workspace_take(workspace, scratch);
    return 0;
}

int product_pack(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *b,
                 const float **packed)
{
    *packed = b;
    if (!k->call[slot + PRODUCT_REORDER].primitive)
        return 0;
    *packed = workspace_at(args, k->offset[slot + PRODUCT_REORDER]);
    const void *buffer[] = {b, *packed};
    return onednn_call_run(&k->call[slot + PRODUCT_REORDER], self->stream, buffer,
                           workspace_at(args, k->offset[slot + PRODUCT_MATMUL]));
}

int product_run(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *a,
                const float *b, const float *bias, float *c)
{
    const void *buffer[] = {a, b, c, bias};
    return onednn_call_run(&k->call[slot + PRODUCT_MATMUL], self->stream, buffer,
                           workspace_at(args, k->offset[slot + PRODUCT_MATMUL]));
}

bool product_worth_packing(int64_t rows, int64_t k, int64_t n)
{
    return rows >= 2 * (k > n ? k : n);
}

int64_t product_chunk_rows(int64_t rows)
{
    for (int64_t chunk = CHUNK_ROWS; chunk >= CHUNK_ROWS / 8; chunk--)
        if (rows % chunk == 0)
            return chunk;
    return rows;
}

int weight_gradient(const float *x, const float *dy, int64_t rows, int64_t o, int64_t i, float *dw, int64_t stride)
{
    return onednn_check(dnnl_sgemm('T', 'N', o, i, rows, 1.0F, dy, o, x, i, 0.0F, dw, stride), "sgemm");
}

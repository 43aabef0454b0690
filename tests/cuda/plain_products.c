/* Matrix products in plain C. Workspace is asked for and not used, so that its bounds are seen by sanitizers. */
#include "base/error.h"
#include "base/sixteen_bit.h"
#include "graph/node.h"
#include "plain_device.h"

#include <stdlib.h>

struct cuda_product {
    cuda_product_desc desc;
    void *stream;
};

typedef struct {
    cuda_product_desc desc;
    const void *a, *b;
    void *c, *vector;
} product_run;

double plain_load(const void *array, uint8_t type, int64_t index)
{
    if (type == DTYPE_F16)
        return (double)float16_value(((const uint16_t *)array)[index]);
    if (type == DTYPE_BF16)
        return (double)bfloat16_value(((const uint16_t *)array)[index]);
    return (double)((const float *)array)[index];
}

void plain_store(void *array, uint8_t type, int64_t index, double value)
{
    if (type == DTYPE_F16)
        ((uint16_t *)array)[index] = float16_from((float)value);
    else if (type == DTYPE_BF16)
        ((uint16_t *)array)[index] = bfloat16_from((float)value);
    else
        ((float *)array)[index] = (float)value;
}

int cuda_product_prepare(cuda_products *self, const cuda_product_desc *desc, cuda_product **out, size_t *workspace)
{
    CHECK(desc->extra == CUDA_PRODUCT_PLAIN || self->extras, ERROR_KERNEL, "this device has no such product");
    cuda_product *p = malloc(sizeof *p);
    CHECK(p, ERROR_MEMORY, "no memory for a product");
    p->desc = *desc;
    p->stream = self->stream;
    *out = p;
    *workspace = 64;
    return 0;
}

static int64_t place(int64_t row, int64_t column, int64_t ld, bool transposed)
{
    return transposed ? column * ld + row : row * ld + column;
}

/* The matrix [rows, columns] in float64, dense. */
static double *widened(const void *matrix, uint8_t type, int64_t rows, int64_t columns, int64_t ld, bool transposed)
{
    double *wide = malloc((size_t)(rows * columns) * sizeof *wide);
    if (!wide)
        abort();
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++)
            wide[row * columns + column] = plain_load(matrix, type, place(row, column, ld, transposed));
    return wide;
}

static void multiply(const void *args)
{
    const product_run *r = args;
    const cuda_product_desc *d = &r->desc;
    double *a = widened(r->a, d->type, d->m, d->k, d->lda, d->transpose_a);
    double *b = widened(r->b, d->type, d->n, d->k, d->ldb, !d->transpose_b); /* a row for each column of c */
    for (int64_t row = 0; row < d->m; row++)
        for (int64_t column = 0; column < d->n; column++) {
            double sum = d->accumulate ? plain_load(r->c, d->result, row * d->ldc + column) : 0;
            for (int64_t i = 0; i < d->k; i++)
                sum += a[row * d->k + i] * b[column * d->k + i];
            if (d->extra == CUDA_PRODUCT_BIAS || d->extra == CUDA_PRODUCT_BIAS_RELU)
                sum += plain_load(r->vector, d->result, column);
            if (d->extra == CUDA_PRODUCT_BIAS_RELU && sum < 0)
                sum = 0;
            plain_store(r->c, d->result, row * d->ldc + column, sum);
        }
    for (int64_t row = 0; row < d->m && d->extra == CUDA_PRODUCT_ROW_SUMS; row++) {
        double sum = 0;
        for (int64_t i = 0; i < d->k; i++)
            sum += a[row * d->k + i];
        ((float *)r->vector)[row] = (float)sum;
    }
    free(a);
    free(b);
}

int cuda_product_run(const cuda_product *p, const void *a, const void *b, void *c, void *vector, void *workspace)
{
    const product_run run = {p->desc, a, b, c, vector};
    bool aligned = ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % p->desc.alignment == 0;
    CHECK(aligned && workspace, ERROR_KERNEL, "pointers of a product are not aligned to %u", p->desc.alignment);
    CHECK((vector != NULL) == (p->desc.extra != CUDA_PRODUCT_PLAIN), ERROR_KERNEL, "a vector goes with an extra");
    return plain_submit(p->stream, multiply, &run, sizeof run);
}

void cuda_product_release(cuda_product *p)
{
    free(p);
}

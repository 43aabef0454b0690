/* Matrix products with a weight, as calls of a kernel. Private to kernels/cpu/. */
#ifndef TESKD_KERNELS_CPU_PRODUCT_H
#define TESKD_KERNELS_CPU_PRODUCT_H

#include "cpu.h"

/* c[rows, n] = a[rows, k] b, with b(k, n) at k*stride_k + n*stride_n; all else is dense. */
typedef struct {
    int64_t rows, k, n;
    int64_t stride_k, stride_n;
    bool bias;       /* added to every row */
    bool accumulate; /* c is added */
    bool relu;       /* last */
    bool pack;       /* b into the layout that the product likes best */
} product;

/* A product takes two calls of the kernel, and the offsets beside them: the matmul, and the reorder that packs b
 * (perhaps none). A second product starts at PRODUCT_SECOND; offsets behind both are the op's own. */
enum { PRODUCT_MATMUL, PRODUCT_REORDER, PRODUCT_SECOND, PRODUCT_CALLS = 2 * PRODUCT_SECOND };

/* Makes the product in calls `slot` and `slot` + 1 and takes its workspace. */
int product_prepare(const cpu_backend *self, kernel *k, int slot, const product *p, size_t *workspace);

/* The right operand as the matmul wants it: packed into the workspace, or as it is. */
int product_pack(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *b,
                 const float **packed);

int product_run(const cpu_backend *self, const kernel *k, int slot, const kernel_args *args, const float *a,
                const float *b, const float *bias, float *c);

/* Packing reads and writes the weight once: worth it when many rows use it. */
bool product_worth_packing(int64_t rows, int64_t k, int64_t n);

/* Rows that products which share them take at a time, so that they stay in the cache: a divisor of `rows`. */
int64_t product_chunk_rows(int64_t rows);

/* dw[o, i] = sum over the rows of dy[row, o] * x[row, i], at columns of a dw of `stride` columns. */
int weight_gradient(const float *x, const float *dy, int64_t rows, int64_t o, int64_t i, float *dw, int64_t stride);

#endif

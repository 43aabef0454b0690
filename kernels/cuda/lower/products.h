/* Matrix products on a device: what is asked for, and a prepared one. The graph's ops are brought to these in
 * linear_ops.c; library/cublaslt_products.c answers with cuBLASLt. Nothing of cuBLASLt is seen here, so that a test can
 * answer with plain C.
 */
#ifndef TESKD_KERNELS_CUDA_PRODUCTS_H
#define TESKD_KERNELS_CUDA_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cuda_products cuda_products;
typedef struct cuda_product cuda_product;

/* What is done on the way besides the product. */
typedef enum {
    CUDA_PRODUCT_PLAIN,
    CUDA_PRODUCT_BIAS,      /* adds vector[n] of c's dtype to every row of c */
    CUDA_PRODUCT_BIAS_RELU, /* the same, then a ReLU */
    CUDA_PRODUCT_ROW_SUMS   /* writes the sums over k of op(a) into float32 vector[m] */
} cuda_product_extra;

/* c[m, n] = op(a)[m, k] op(b)[k, n], + c where it accumulates. Row-major; ld* is the distance of rows in elements. */
typedef struct {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    bool transpose_a, transpose_b; /* a lies as [k, m], b as [n, k] */
    bool accumulate;
    cuda_product_extra extra;
    uint8_t type;       /* dtype of a and b */
    uint8_t result;     /* dtype of c: `type`, or float32 */
    uint32_t alignment; /* of a, b and c in bytes */
} cuda_product_desc;

/* Chooses an algorithm; `workspace` is what its runs need. ERROR_KERNEL when there is none, as for some extras. */
int cuda_product_prepare(cuda_products *self, const cuda_product_desc *desc, cuda_product **out, size_t *workspace);

/* `vector` is NULL without an extra. */
int cuda_product_run(const cuda_product *product, const void *a, const void *b, void *c, void *vector, void *workspace);
void cuda_product_release(cuda_product *product);

#endif

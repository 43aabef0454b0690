/* What ops keep of the matrix products (products.h) that they are brought to. Private to kernels/cuda/. */
#ifndef TESKD_KERNELS_CUDA_PRODUCT_PLAN_H
#define TESKD_KERNELS_CUDA_PRODUCT_PLAN_H

#include "cuda_backend.h"
#include "products.h"

/* Of the workspace: that of product 0 and of product 1; those behind are the op's own. */
enum { OFFSET_PRODUCT, OFFSET_SECOND, OFFSET_OWN };

/* Pointers of a tensor are aligned to it. */
enum { TENSOR_ALIGNMENT = 64 };

typedef struct {
    cuda_product *product[2]; /* NULL where not wanted */
    bool extra_after;         /* the extra by a native kernel */
    int64_t first_columns;    /* concat_linear: columns of the weight that belong to a */
} product_plan;

/* The plan of `k`, which owns it, and its launch. */
int product_plan_new(kernel *k, cuda_launch *launch, product_plan **out);

/* Makes product `index` of the plan and takes its workspace. */
int product_plan_add(cuda_backend *self, kernel *k, int index, const cuda_product_desc *desc, size_t *workspace);

/* The same of product 0 with an extra, which is left to a native kernel where the product cannot do it. */
int product_plan_add_with(cuda_backend *self, kernel *k, cuda_product_desc desc, cuda_product_extra extra,
                          size_t *workspace);

int product_plan_run(const kernel *k, const kernel_args *args, int index, const void *a, const void *b, void *c,
                     void *vector);

/* Does the second lie row by row beside the first (graph/placement.h)? One product then takes or makes both. */
bool product_is_beside(const tensor_desc *first, const tensor_desc *second);

/* Holds the pointers of two such to it; ERROR_INTERNAL. */
int product_check_beside(const void *first, const void *second, int64_t first_columns, uint8_t type);

/* Where a column of a matrix begins, and the largest power of two that divides that offset, as far as it matters. */
void *product_column(const void *matrix, int64_t column, uint8_t type);
uint32_t product_column_alignment(int64_t column, uint8_t type);

#endif

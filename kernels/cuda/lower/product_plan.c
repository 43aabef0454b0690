/* Owns the plans of ops that are matrix products. Invariant: what a product cannot do on the way (adding a bias,
 * summing its gradient) a native kernel does. So the op is the same on every GPU. One thread. */
#include "product_plan.h"
#include "base/error.h"

#include <stdlib.h>

static void release(void *plan)
{
    product_plan *p = plan;
    for (int i = 0; i < 2; i++)
        if (p->product[i])
            cuda_product_release(p->product[i]);
    free(p);
}

int product_plan_new(kernel *k, cuda_launch *launch, product_plan **out)
{
    product_plan *p = calloc(1, sizeof *p);
    CHECK(p, ERROR_MEMORY, "no memory for a matrix product");
    k->plan = p;
    k->release_plan = release;
    k->launch = launch;
    *out = p;
    return 0;
}

int product_plan_add(cuda_backend *self, kernel *k, int index, const cuda_product_desc *desc, size_t *workspace)
{
    product_plan *p = k->plan;
    size_t bytes = 0;
    TRY(cuda_product_prepare(self->products, desc, &p->product[index], &bytes));
    k->offset[index] = cuda_workspace_take(workspace, bytes);
    return 0;
}

int product_plan_add_with(cuda_backend *self, kernel *k, cuda_product_desc desc, cuda_product_extra extra,
                          size_t *workspace)
{
    product_plan *p = k->plan;
    desc.extra = extra;
    if (extra != CUDA_PRODUCT_PLAIN && product_plan_add(self, k, 0, &desc, workspace) == 0)
        return 0;
    desc.extra = CUDA_PRODUCT_PLAIN;
    p->extra_after = extra != CUDA_PRODUCT_PLAIN;
    return product_plan_add(self, k, 0, &desc, workspace);
}

int product_plan_run(const kernel *k, const kernel_args *args, int index, const void *a, const void *b, void *c,
                     void *vector)
{
    const product_plan *p = k->plan;
    return cuda_product_run(p->product[index], a, b, c, vector, cuda_workspace_at(args, k->offset[index]));
}

void *product_column(const void *matrix, int64_t column, uint8_t type)
{
    return (char *)(uintptr_t)matrix + (size_t)column * dtype_bytes(type);
}

uint32_t product_column_alignment(int64_t column, uint8_t type)
{
    uint32_t alignment = TENSOR_ALIGNMENT;
    while ((size_t)column * dtype_bytes(type) % alignment != 0)
        alignment /= 2;
    return alignment;
}

bool product_is_beside(const tensor_desc *first, const tensor_desc *second)
{
    return first->row_stride > 0 && first->row_stride == first->dim[3] + second->dim[3] &&
           second->row_stride == first->row_stride;
}

int product_check_beside(const void *first, const void *second, int64_t first_columns, uint8_t type)
{
    CHECK(second == product_column(first, first_columns, type), ERROR_INTERNAL,
          "operands that are said to lie side by side do not");
    return 0;
}

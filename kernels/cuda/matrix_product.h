/* Opens cuBLASLt's answer to products.h. */
#ifndef TESKD_KERNELS_CUDA_MATRIX_PRODUCT_H
#define TESKD_KERNELS_CUDA_MATRIX_PRODUCT_H

#include "libraries.h"
#include "products.h"

#include <stdbool.h>

/* With `tf32` float32 products may use TF32 tensor cores. The libraries and the stream must outlive it. ERROR_KERNEL
 * without cuBLASLt. */
int cuda_products_open(cuda_products **out, const cuda_libraries *libraries, cudaStream_t stream, bool tf32);
void cuda_products_close(cuda_products *self);

#endif

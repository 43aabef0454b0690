/* Opens cuBLASLt's answer to products.h. */
#ifndef TESKD_KERNELS_CUDA_MATRIX_PRODUCT_H
#define TESKD_KERNELS_CUDA_MATRIX_PRODUCT_H

#include "kernels/cuda/lower/products.h"
#include "kernels/cuda/lower/timing.h"
#include "libraries.h"

#include <stdbool.h>

typedef struct {
    cudaStream_t stream;
    cuda_timer *timer; /* where `tune` is set */
    bool tf32;         /* float32 products may use TF32 tensor cores */
    bool tune;         /* times the most promising algorithms at the first use of a shape */
    const char *cache; /* folder of the plan cache; empty for the user's, NULL for none */
    const char *model; /* of the GPU, for the name of its folder there */
} cuda_products_options;

/* The libraries and the stream must outlive it. ERROR_KERNEL without cuBLASLt. */
int cuda_products_open(cuda_products **out, const cuda_libraries *libraries, const cuda_products_options *options);
void cuda_products_close(cuda_products *self);

#endif

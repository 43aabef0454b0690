/* A device that is this processor: products.h and convolutions.h answered in plain C on host memory, sums in float64.
 * Stands in for matrix_product.c and convolution.c where there is no GPU. */
#ifndef TESKD_TESTS_PLAIN_DEVICE_H
#define TESKD_TESTS_PLAIN_DEVICE_H

#include "convolutions.h"
#include "products.h"

/* Without `extras` it refuses biases and sums on the way, as some GPUs do. */
struct cuda_products {
    bool extras;
};

struct cuda_convolutions {
    bool bias;
};

/* An element of a float32, float16 or bfloat16 array. */
double plain_load(const void *array, uint8_t type, int64_t index);
void plain_store(void *array, uint8_t type, int64_t index, double value);

#endif

/* A device that is this processor: products.h and convolutions.h answered in plain C, sums in float64. Stands in for
 * matrix_product.c and convolution.c where there is no GPU. */
#ifndef TESKD_TESTS_PLAIN_DEVICE_H
#define TESKD_TESTS_PLAIN_DEVICE_H

#include "kernels/cuda/lower/convolutions.h"
#include "kernels/cuda/lower/products.h"

/* Without `extras` it refuses biases and sums on the way, as some GPUs do. */
struct cuda_products {
    bool extras;
    void *stream;
};

struct cuda_convolutions {
    bool bias;
    cuda_sums_way sums; /* what is known of convolutions with statistics */
    void *stream;
};

/* Does `work` with a copy of `args`, in order on the stream; each test's device has its own way. 0 or an error. */
int plain_submit(void *stream, void (*work)(const void *args), const void *args, size_t bytes);

/* An element of a float32, float16 or bfloat16 array. */
double plain_load(const void *array, uint8_t type, int64_t index);
void plain_store(void *array, uint8_t type, int64_t index, double value);

#endif

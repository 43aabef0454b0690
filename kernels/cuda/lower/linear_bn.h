/* Native kernels around the products of linear_bn and its gradients. `w` is float32 [outputs, channels], `real` the
 * dtype of activations. Private to kernels/cuda/.
 */
#ifndef TESKD_KERNELS_CUDA_LINEAR_BN_H
#define TESKD_KERNELS_CUDA_LINEAR_BN_H

#include "cuda_backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is known of the layer in a launch; what one does not need may be NULL. */
typedef struct {
    int outputs, channels;
    const float *w, *gamma, *beta;
    const double *sums, *gsums;
    double count, eps;
} linear_bn_layer;

/* weight[o, c] = gamma/std * w and bias[o] = beta - gamma/std * mean, both of `real`. */
int cuda_linear_bn_fold(const cuda_backend *self, const linear_bn_layer *l, void *weight, void *bias);

/* Of dx = g from_g + x from_x + constant: from_g [outputs, channels], from_x [channels, channels], constant [channels],
 * all of `real`. `table` is float32 [2, outputs]. */
int cuda_linear_bn_fold_gradient(const cuda_backend *self, const linear_bn_layer *l, void *from_g, void *from_x,
                                 void *constant, float *table);

/* Adds a bias of `real` to the rows of a matrix of `real`, `stride` elements apart, and perhaps a ReLU. */
int cuda_bias_relu(const cuda_backend *self, void *y, int stride, int64_t rows, int columns, const void *bias,
                   bool relu);

#ifdef __cplusplus
}
#endif
#endif

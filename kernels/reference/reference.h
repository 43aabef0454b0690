/* What the files of the reference backend share. Every op is one function of the type `reference_op`. */
#ifndef TESKD_KERNELS_REFERENCE_REFERENCE_H
#define TESKD_KERNELS_REFERENCE_REFERENCE_H

#include "blas.h"
#include "kernels/backend.h"

typedef struct {
    backend base;
    blas blas;
    char description[192];
} reference;

/* Computes one node. Absent inputs and outputs are NULL in `args`. Only bad data (a class out of range) fails. */
typedef int reference_op(const reference *self, const kernel_request *request, const kernel_args *args);

reference_op reference_conv2d, reference_conv2d_dgrad, reference_conv2d_wgrad;
reference_op reference_linear, reference_linear_dgrad, reference_linear_wgrad;
reference_op reference_concat_linear, reference_concat_linear_dgrad, reference_concat_linear_wgrad;
reference_op reference_bn_sums, reference_bn_normalize, reference_bn_running, reference_bn_inference, reference_zero;
reference_op reference_bn_grad_sums, reference_bn_grad, reference_bn_param_grad;
reference_op reference_channel_moments, reference_linear_bn_sums, reference_linear_bn;
reference_op reference_linear_bn_grad_sums, reference_linear_bn_wgrad, reference_linear_bn_dgrad;
reference_op reference_add, reference_concat, reference_channel_slice;
reference_op reference_upsample2x, reference_upsample2x_grad;
reference_op reference_upsample_bn_sums, reference_upsample_bn, reference_upsample_bn_inference;
reference_op reference_upsample_bn_grad_sums, reference_upsample_bn_grad;
reference_op reference_patchify, reference_unpatchify;
reference_op reference_fold_fuse_weight, reference_fold_fuse_weight_grad;
reference_op reference_global_average_pool, reference_global_average_pool_grad;
reference_op reference_cross_entropy, reference_cross_entropy_grad;
reference_op reference_kd_loss, reference_kd_loss_grad;
reference_op reference_feature_loss, reference_feature_loss_grad;
reference_op reference_relu, reference_relu_grad, reference_excite, reference_excite_grad;
reference_op reference_max_pool, reference_max_pool_grad;
reference_op reference_top_k;
reference_op reference_sum_squares, reference_count_not_finite, reference_clip_factor, reference_loss_scale,
    reference_lars_rate, reference_sgd_update;
reference_op reference_ema_update, reference_scale, reference_metric_add, reference_metric_watch;
reference_op reference_images, reference_pad_channels, reference_convert;

/* Workspace of the three convolution ops: the patches of one group of one image as a matrix. */
size_t reference_conv2d_workspace(const kernel_request *request);

/* Workspace of the upsample_bn ops: two feature maps of the large size. */
size_t reference_upsample_bn_workspace(const kernel_request *request);

/* Workspace of linear_bn_dgrad: the product. */
size_t reference_linear_bn_workspace(const kernel_request *request);

/* sums[0][c], sums[1][c]: of x[.., c] and of its square over the rows. */
void reference_channel_sums(const tensor_desc *desc, const double *x, double *sums);

/* bias[c] = sum of dy[.., c] over the rows. */
void reference_bias_grad(const tensor_desc *dy_desc, const double *dy, double *dbias);

#endif

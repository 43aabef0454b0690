/* What the parts of the CUDA backend share. Private to kernels/cuda/.
 *
 * Activations and their gradients are NHWC of one `real` dtype (float32, float16 or bfloat16); weights of convolutions
 * and matrix products are read in that dtype (16-bit copies of the float32 masters); weight gradients, biases, batch
 * normalisation's parameters and statistics, momentum and averages are float32; sums and losses float64.
 * Everything is launched on one stream in order. Host code is C11, kernels are CUDA C++ in .cu files behind C
 * functions.
 */
#ifndef TESKD_KERNELS_CUDA_BACKEND_H
#define TESKD_KERNELS_CUDA_BACKEND_H

#include "kernels/backend.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cuda_convolutions cuda_convolutions; /* cuDNN: convolution.c */
typedef struct cuda_products cuda_products;         /* cuBLASLt: matrix_product.c */

typedef struct {
    backend base;
    dtype real;         /* of activations */
    bool tf32;          /* float32 products may use TF32 tensor cores */
    bool deterministic; /* the same bits every time */
    int device;         /* CUDA's number of the GPU */
    cudaStream_t stream;
    int multiprocessors;
    cuda_convolutions *convolutions;
    cuda_products *products;
    char description[320];
} cuda_backend;

enum { CUDA_MAX_OFFSETS = 8 };

typedef int cuda_launch(const cuda_backend *self, const kernel *k, const kernel_args *args);

/* Chooses k->launch and adds to the workspace; k->request is set. Returns ERROR_KERNEL when there is no way. */
typedef int cuda_prepare(cuda_backend *self, kernel *k, size_t *workspace);

struct kernel {
    kernel_request request;
    cuda_launch *launch;
    size_t offset[CUDA_MAX_OFFSETS]; /* of parts of the workspace */
    void *plan;                      /* cuDNN's or cuBLASLt's; NULL for own kernels */
    void (*release_plan)(void *plan);
};

/* Takes `bytes` of the workspace, aligned to 256; returns their offset. */
static inline size_t cuda_workspace_take(size_t *workspace, size_t bytes)
{
    size_t offset = (*workspace + 255) / 256 * 256;
    *workspace = offset + bytes;
    return offset;
}

static inline void *cuda_workspace_at(const kernel_args *args, size_t offset)
{
    return (char *)args->workspace + offset;
}

/* 0, or ERROR_KERNEL with "<what>: <the runtime's text>". */
int cuda_check(cudaError_t status, const char *what);

/* Entries of the backend's table (kernels/backend.h), the same for a GPU and for the tests' emulated device. */
int cuda_kernel_prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace);
int cuda_kernel_launch(backend *self, kernel *k, const kernel_args *args);
void cuda_kernel_release(backend *self, kernel *k);
void *cuda_memory_alloc(backend *self, size_t bytes);
void cuda_memory_free(backend *self, void *memory);
const char *cuda_describe(backend *self);

/* Own kernels, one pair or launch an op of graph/ops.def; in .cu files by topic. The prepare ones say the workspace. */
cuda_prepare cuda_bn_prepare, cuda_pool_prepare, cuda_loss_prepare, cuda_sum_squares_prepare;
cuda_launch cuda_bn_sums, cuda_bn_normalize, cuda_bn_running, cuda_bn_inference, cuda_bn_grad_sums, cuda_bn_grad,
    cuda_bn_param_grad, cuda_add, cuda_concat, cuda_channel_slice, cuda_upsample2x, cuda_upsample2x_grad, cuda_patchify,
    cuda_unpatchify, cuda_fold_fuse_weight, cuda_fold_fuse_weight_grad, cuda_global_average_pool,
    cuda_global_average_pool_grad, cuda_relu, cuda_relu_grad, cuda_max_pool, cuda_max_pool_grad, cuda_excite,
    cuda_excite_grad, cuda_cross_entropy, cuda_cross_entropy_grad, cuda_kd_loss, cuda_kd_loss_grad, cuda_feature_loss,
    cuda_feature_loss_grad, cuda_top_k, cuda_sum_squares, cuda_clip_factor, cuda_sgd_update, cuda_ema_update;

/* float32 column sums of a [rows, columns] matrix of the given dtype: the gradient of a bias. Deterministic. */
size_t cuda_column_sums_bytes(int64_t rows, int64_t columns);
int cuda_column_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns, float *sums,
                     void *workspace);

/* Converts `count` float32 elements to the dtype `type` (the 16-bit copy of a master weight). */
int cuda_convert(const cuda_backend *self, const float *from, uint8_t type, int64_t count, void *to);

/* The other way (a weight gradient that a library gives in 16 bits only). */
int cuda_convert_to_float(const cuda_backend *self, const void *from, uint8_t type, int64_t count, float *to);

/* Adds a float32 bias [columns] to every row of a matrix of the dtype `type`, where a library cannot do it itself. */
int cuda_add_bias(const cuda_backend *self, void *y, uint8_t type, int64_t rows, int64_t columns, const float *bias);

/* cuDNN: conv2d, conv2d_dgrad, conv2d_wgrad that are no matrix products. */
cuda_prepare cuda_conv2d_prepare, cuda_conv2d_dgrad_prepare, cuda_conv2d_wgrad_prepare;

/* cuBLASLt: linear, concat_linear, their gradients, and 1x1 convolutions. */
cuda_prepare cuda_linear_prepare, cuda_linear_dgrad_prepare, cuda_linear_wgrad_prepare, cuda_concat_linear_prepare,
    cuda_concat_linear_dgrad_prepare, cuda_concat_linear_wgrad_prepare;

#ifdef __cplusplus
}
#endif
#endif

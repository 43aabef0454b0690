/* Owns the CUDA backend's table: one row for each op, kernels' lives, device memory. Uses nothing but the CUDA runtime
 * and the interfaces of convolutions.h and products.h, so that it also stands on an emulated device. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <stdlib.h>

/* What an op needs: `prepare` says the workspace and may choose the launch itself. */
typedef struct {
    cuda_prepare *prepare;
    cuda_launch *launch;
} cuda_op;

static const cuda_op cuda_ops[OP_COUNT] = {
    [OP_CONV2D] = {cuda_conv2d_prepare, NULL},
    [OP_CONV2D_DGRAD] = {cuda_conv2d_dgrad_prepare, NULL},
    [OP_CONV2D_WGRAD] = {cuda_conv2d_wgrad_prepare, NULL},
    [OP_LINEAR] = {cuda_linear_prepare, NULL},
    [OP_LINEAR_DGRAD] = {cuda_linear_dgrad_prepare, NULL},
    [OP_LINEAR_WGRAD] = {cuda_linear_wgrad_prepare, NULL},
    [OP_CONCAT_LINEAR] = {cuda_concat_linear_prepare, NULL},
    [OP_CONCAT_LINEAR_DGRAD] = {cuda_concat_linear_dgrad_prepare, NULL},
    [OP_CONCAT_LINEAR_WGRAD] = {cuda_concat_linear_wgrad_prepare, NULL},
    [OP_BN_SUMS] = {cuda_bn_prepare, cuda_bn_sums},
    [OP_BN_NORMALIZE] = {NULL, cuda_bn_normalize},
    [OP_BN_RUNNING] = {NULL, cuda_bn_running},
    [OP_BN_INFERENCE] = {NULL, cuda_bn_inference},
    [OP_BN_GRAD_SUMS] = {cuda_bn_prepare, cuda_bn_grad_sums},
    [OP_BN_GRAD] = {NULL, cuda_bn_grad},
    [OP_BN_PARAM_GRAD] = {NULL, cuda_bn_param_grad},
    [OP_ADD] = {NULL, cuda_add},
    [OP_CONCAT] = {NULL, cuda_concat},
    [OP_CHANNEL_SLICE] = {NULL, cuda_channel_slice},
    [OP_UPSAMPLE2X] = {NULL, cuda_upsample2x},
    [OP_UPSAMPLE2X_GRAD] = {NULL, cuda_upsample2x_grad},
    [OP_PATCHIFY] = {NULL, cuda_patchify},
    [OP_UNPATCHIFY] = {NULL, cuda_unpatchify},
    [OP_FOLD_FUSE_WEIGHT] = {NULL, cuda_fold_fuse_weight},
    [OP_FOLD_FUSE_WEIGHT_GRAD] = {NULL, cuda_fold_fuse_weight_grad},
    [OP_GLOBAL_AVERAGE_POOL] = {NULL, cuda_global_average_pool},
    [OP_GLOBAL_AVERAGE_POOL_GRAD] = {NULL, cuda_global_average_pool_grad},
    [OP_RELU] = {NULL, cuda_relu},
    [OP_RELU_GRAD] = {NULL, cuda_relu_grad},
    [OP_MAX_POOL] = {cuda_pool_prepare, cuda_max_pool},
    [OP_MAX_POOL_GRAD] = {cuda_pool_prepare, cuda_max_pool_grad},
    [OP_EXCITE] = {NULL, cuda_excite},
    [OP_EXCITE_GRAD] = {NULL, cuda_excite_grad},
    [OP_CROSS_ENTROPY] = {cuda_loss_prepare, cuda_cross_entropy},
    [OP_CROSS_ENTROPY_GRAD] = {NULL, cuda_cross_entropy_grad},
    [OP_KD_LOSS] = {cuda_loss_prepare, cuda_kd_loss},
    [OP_KD_LOSS_GRAD] = {NULL, cuda_kd_loss_grad},
    [OP_FEATURE_LOSS] = {cuda_loss_prepare, cuda_feature_loss},
    [OP_FEATURE_LOSS_GRAD] = {NULL, cuda_feature_loss_grad},
    [OP_TOP_K] = {cuda_loss_prepare, cuda_top_k},
    [OP_SUM_SQUARES] = {cuda_sum_squares_prepare, cuda_sum_squares},
    [OP_CLIP_FACTOR] = {NULL, cuda_clip_factor},
    [OP_SGD_UPDATE] = {NULL, cuda_sgd_update},
    [OP_EMA_UPDATE] = {NULL, cuda_ema_update},
};

int cuda_check(cudaError_t status, const char *what)
{
    CHECK(status == cudaSuccess, ERROR_KERNEL, "%s: %s", what, cudaGetErrorString(status));
    return 0;
}

void cuda_kernel_release(backend *self, kernel *k)
{
    (void)self;
    if (k && k->plan)
        k->release_plan(k->plan);
    free(k);
}

int cuda_kernel_prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace)
{
    unsigned op = request->node.op;
    CHECK(op < OP_COUNT && (cuda_ops[op].prepare || cuda_ops[op].launch), ERROR_KERNEL,
          "%s: the CUDA backend has no kernel for op %u", request->label, op);
    kernel *k = calloc(1, sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a kernel");
    k->request = *request;
    k->request.label = NULL; /* the caller's text may not outlive the call */
    k->launch = cuda_ops[op].launch;
    *workspace = 0;
    int code = cuda_ops[op].prepare ? cuda_ops[op].prepare((cuda_backend *)self, k, workspace) : 0;
    if (code < 0) {
        cuda_kernel_release(self, k);
        return error_prefix(code, "%s", request->label);
    }
    *out = k;
    return 0;
}

int cuda_kernel_launch(backend *self, kernel *k, const kernel_args *args)
{
    return k->launch((const cuda_backend *)self, k, args);
}

void *cuda_memory_alloc(backend *self, size_t bytes)
{
    (void)self;
    void *memory = NULL;
    return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : NULL;
}

void cuda_memory_free(backend *self, void *memory)
{
    (void)self;
    cudaFree(memory);
}

const char *cuda_describe(backend *self)
{
    return ((cuda_backend *)self)->description;
}

/* Owns the table of the CUDA backend's own kernels, over memory of the emulated device. No convolutions and no matrix
 * products. One thread. */
#include "emulated_backend.h"

#include <stdlib.h>

#include "base/error.h"

typedef struct {
    cuda_prepare *prepare;
    cuda_launch *launch;
} own_op;

static const own_op own_ops[OP_COUNT] = {
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

bool emulated_backend_has(unsigned op)
{
    return op < OP_COUNT && own_ops[op].launch;
}

int cuda_check(cudaError_t status, const char *what)
{
    CHECK(status == cudaSuccess, ERROR_KERNEL, "%s: %s", what, cudaGetErrorString(status));
    return 0;
}

static void release(backend *self, kernel *k)
{
    (void)self;
    free(k);
}

static int prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace)
{
    unsigned op = request->node.op;
    CHECK(emulated_backend_has(op), ERROR_KERNEL, "%s: no own kernel for op %u", request->label, op);
    kernel *k = calloc(1, sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a kernel");
    k->request = *request;
    k->launch = own_ops[op].launch;
    *workspace = 0;
    int code = own_ops[op].prepare ? own_ops[op].prepare((cuda_backend *)self, k, workspace) : 0;
    if (code < 0) {
        release(self, k);
        return code;
    }
    *out = k;
    return 0;
}

static int launch(backend *self, kernel *k, const kernel_args *args)
{
    return k->launch((const cuda_backend *)self, k, args);
}

static void *allocate(backend *self, size_t bytes)
{
    (void)self;
    void *memory = NULL;
    return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : NULL;
}

static void free_memory(backend *self, void *memory)
{
    (void)self;
    cudaFree(memory);
}

static const char *description(backend *self)
{
    return ((cuda_backend *)self)->description;
}

static void close_backend(backend *self)
{
    free((void *)(uintptr_t)self->ops);
    free(self);
}

int emulated_backend_open(cuda_backend **out, dtype real, int multiprocessors)
{
    cuda_backend *self = calloc(1, sizeof *self);
    backend_ops *ops = malloc(sizeof *ops); /* `real` differs from one backend to the next */
    if (!self || !ops) {
        free(self);
        free(ops);
        return error_set(ERROR_MEMORY, "no memory for the emulated backend");
    }
    *ops = (backend_ops){.name = "emulated",
                         .real = real,
                         .prepare = prepare,
                         .launch = launch,
                         .release = release,
                         .alloc = allocate,
                         .free = free_memory,
                         .description = description,
                         .close = close_backend};
    self->base.ops = ops;
    self->real = real;
    self->deterministic = true;
    self->multiprocessors = multiprocessors;
    *out = self;
    return 0;
}

/* Owns the CUDA backend's tables, one row for each op and the entries of kernels/backend.h, and kernels' lives. Uses
 * nothing but the CUDA runtime and the interfaces of convolutions.h and products.h, so that it also stands on an
 * emulated device. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>

static int zero_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return cuda_memory_zero((backend *)(uintptr_t)&self->base, args->out[0], tensor_bytes(&k->request.out[0]));
}

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
    [OP_CHANNEL_MOMENTS] = {cuda_channel_moments_prepare, NULL},
    [OP_LINEAR_BN_SUMS] = {NULL, cuda_linear_bn_sums},
    [OP_LINEAR_BN] = {cuda_linear_bn_prepare, NULL},
    [OP_LINEAR_BN_GRAD_SUMS] = {NULL, cuda_linear_bn_grad_sums},
    [OP_LINEAR_BN_WGRAD] = {NULL, cuda_linear_bn_wgrad},
    [OP_LINEAR_BN_DGRAD] = {cuda_linear_bn_dgrad_prepare, NULL},
    [OP_BN_RUNNING] = {NULL, cuda_bn_running},
    [OP_ZERO] = {NULL, zero_launch},
    [OP_BN_INFERENCE] = {NULL, cuda_bn_inference},
    [OP_BN_GRAD_SUMS] = {cuda_bn_prepare, cuda_bn_grad_sums},
    [OP_BN_GRAD] = {NULL, cuda_bn_grad},
    [OP_BN_PARAM_GRAD] = {NULL, cuda_bn_param_grad},
    [OP_ADD] = {NULL, cuda_add},
    [OP_CONCAT] = {NULL, cuda_concat},
    [OP_CHANNEL_SLICE] = {NULL, cuda_channel_slice},
    [OP_UPSAMPLE2X] = {NULL, cuda_upsample2x},
    [OP_UPSAMPLE2X_GRAD] = {NULL, cuda_upsample2x_grad},
    [OP_UPSAMPLE_BN_SUMS] = {cuda_upsample_bn_sums_prepare, cuda_upsample_bn_sums},
    [OP_UPSAMPLE_BN] = {NULL, cuda_upsample_bn},
    [OP_UPSAMPLE_BN_INFERENCE] = {NULL, cuda_upsample_bn_inference},
    [OP_UPSAMPLE_BN_GRAD_SUMS] = {cuda_upsample_bn_grad_sums_prepare, cuda_upsample_bn_grad_sums},
    [OP_UPSAMPLE_BN_GRAD] = {NULL, cuda_upsample_bn_grad},
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
    [OP_CROSS_ENTROPY] = {cuda_loss_prepare, cuda_loss},
    [OP_CROSS_ENTROPY_GRAD] = {NULL, cuda_loss},
    [OP_KD_LOSS] = {cuda_loss_prepare, cuda_loss},
    [OP_KD_LOSS_GRAD] = {NULL, cuda_loss},
    [OP_FEATURE_LOSS] = {cuda_loss_prepare, cuda_loss},
    [OP_FEATURE_LOSS_GRAD] = {NULL, cuda_loss},
    [OP_TOP_K] = {cuda_loss_prepare, cuda_loss},
    [OP_IMAGES] = {NULL, cuda_images},
    [OP_PAD_CHANNELS] = {NULL, cuda_pad_channels},
    [OP_CONVERT] = {NULL, cuda_convert_op},
    [OP_LOSS_SCALE] = {NULL, cuda_loss_scale},
    [OP_SCALE] = {NULL, cuda_scale},
    [OP_METRIC_ADD] = {NULL, cuda_metric_add},
    [OP_METRIC_WATCH] = {NULL, cuda_metric_watch},
    [OP_SUM_SQUARES] = {cuda_sum_squares_prepare, cuda_sum_squares},
    [OP_COUNT_NOT_FINITE] = {cuda_sum_squares_prepare, cuda_count_not_finite},
    [OP_CLIP_FACTOR] = {NULL, cuda_clip_factor},
    [OP_LARS_RATE] = {cuda_lars_rate_prepare, cuda_lars_rate},
    [OP_SGD_UPDATE] = {NULL, cuda_sgd_update},
    [OP_EMA_UPDATE] = {NULL, cuda_ema_update},
};

static const char *const op_names[OP_COUNT] = {
#define OP(id, name, ...) [id] = name,
#include "graph/ops.def"
#undef OP
};

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
          "%s: the CUDA backend has no kernel for %s", request->label, op < OP_COUNT ? op_names[op] : "this op");
    kernel *k = calloc(1, sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a kernel");
    k->request = *request;
    k->request.label = NULL; /* the caller's text may not outlive the call */
    snprintf(k->name, sizeof k->name, "%s of %s", op_names[op], request->label);
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
    nvtxRangePushA(k->name); /* a call through a null check where no profiler listens */
    int code = k->launch((const cuda_backend *)self, k, args);
    nvtxRangePop();
    return code;
}

const char *cuda_describe(backend *self)
{
    return ((cuda_backend *)self)->description;
}

static const char *pci_address(backend *self)
{
    return ((cuda_backend *)self)->gpu_id;
}

/* As far as rounding goes: of each op, against float64 on the same inputs. */
static double op_error(const cuda_backend *self)
{
    if (self->real == DTYPE_BF16)
        return 1e-2;
    if (self->real == DTYPE_F16)
        return 2e-3;
    return self->tf32 ? 1e-3 : 1e-5;
}

backend_ops cuda_table(const cuda_backend *self)
{
    return (backend_ops){.name = "cuda",
                         .real = DTYPE_F32,
                         .activation = self->real,
                         .op_error = op_error(self),
                         .placed_rows = true,
                         .fuses = true,
                         .host_memory = false,
                         .pads_images = true,
                         .prepare = cuda_kernel_prepare,
                         .launch = cuda_kernel_launch,
                         .release = cuda_kernel_release,
                         .batch_launches = cuda_batch_launches,
                         .alloc = cuda_memory_alloc,
                         .free = cuda_memory_free,
                         .free_bytes = cuda_memory_free_bytes,
                         .write = cuda_memory_write,
                         .write_ready = cuda_memory_write_ready,
                         .read = cuda_memory_read,
                         .copy = cuda_memory_copy,
                         .zero = cuda_memory_zero,
                         .synchronize = cuda_synchronize,
                         .capture_begin = cuda_capture_begin,
                         .capture_end = cuda_capture_end,
                         .replay = cuda_replay,
                         .release_captured = cuda_release_captured,
                         .timestamp = cuda_timestamp,
                         .elapsed = cuda_elapsed,
                         .alloc_pinned = cuda_pinned_alloc,
                         .free_pinned = cuda_pinned_free,
                         .upload = cuda_upload,
                         .upload_use = cuda_upload_use,
                         .upload_release = cuda_upload_release,
                         .upload_done = cuda_upload_done,
                         .pci_address = pci_address,
                         .description = cuda_describe};
}

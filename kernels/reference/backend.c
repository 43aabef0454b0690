/* The reference backend: every op in plain C in float64, the oracle of the other backends. Owns the table from op to
 * function; a kernel is a copy of its request and the function. Obvious comes before fast: only matrix products are
 * left to a library. One thread at a time uses a backend; the library may use several inside. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "kernels/host_memory.h"
#include "reference.h"

struct kernel {
    kernel_request request;
    reference_op *run;
};

static reference_op *const op_functions[OP_COUNT] = {
    [OP_CONV2D] = reference_conv2d,
    [OP_LINEAR] = reference_linear,
    [OP_CONCAT_LINEAR] = reference_concat_linear,
    [OP_BN_SUMS] = reference_bn_sums,
    [OP_BN_NORMALIZE] = reference_bn_normalize,
    [OP_CHANNEL_MOMENTS] = reference_channel_moments,
    [OP_LINEAR_BN_SUMS] = reference_linear_bn_sums,
    [OP_LINEAR_BN] = reference_linear_bn,
    [OP_BN_RUNNING] = reference_bn_running,
    [OP_ZERO] = reference_zero,
    [OP_BN_INFERENCE] = reference_bn_inference,
    [OP_ADD] = reference_add,
    [OP_CONCAT] = reference_concat,
    [OP_UPSAMPLE2X] = reference_upsample2x,
    [OP_UPSAMPLE_BN_SUMS] = reference_upsample_bn_sums,
    [OP_UPSAMPLE_BN] = reference_upsample_bn,
    [OP_UPSAMPLE_BN_INFERENCE] = reference_upsample_bn_inference,
    [OP_PATCHIFY] = reference_patchify,
    [OP_FOLD_FUSE_WEIGHT] = reference_fold_fuse_weight,
    [OP_GLOBAL_AVERAGE_POOL] = reference_global_average_pool,
    [OP_RELU] = reference_relu,
    [OP_MAX_POOL] = reference_max_pool,
    [OP_EXCITE] = reference_excite,
    [OP_CROSS_ENTROPY] = reference_cross_entropy,
    [OP_KD_LOSS] = reference_kd_loss,
    [OP_FEATURE_LOSS] = reference_feature_loss,
    [OP_TOP_K] = reference_top_k,
    [OP_CONV2D_DGRAD] = reference_conv2d_dgrad,
    [OP_CONV2D_WGRAD] = reference_conv2d_wgrad,
    [OP_LINEAR_DGRAD] = reference_linear_dgrad,
    [OP_LINEAR_WGRAD] = reference_linear_wgrad,
    [OP_CONCAT_LINEAR_DGRAD] = reference_concat_linear_dgrad,
    [OP_CONCAT_LINEAR_WGRAD] = reference_concat_linear_wgrad,
    [OP_BN_GRAD_SUMS] = reference_bn_grad_sums,
    [OP_BN_GRAD] = reference_bn_grad,
    [OP_BN_PARAM_GRAD] = reference_bn_param_grad,
    [OP_LINEAR_BN_GRAD_SUMS] = reference_linear_bn_grad_sums,
    [OP_LINEAR_BN_WGRAD] = reference_linear_bn_wgrad,
    [OP_LINEAR_BN_DGRAD] = reference_linear_bn_dgrad,
    [OP_UPSAMPLE2X_GRAD] = reference_upsample2x_grad,
    [OP_UPSAMPLE_BN_GRAD_SUMS] = reference_upsample_bn_grad_sums,
    [OP_UPSAMPLE_BN_GRAD] = reference_upsample_bn_grad,
    [OP_UNPATCHIFY] = reference_unpatchify,
    [OP_FOLD_FUSE_WEIGHT_GRAD] = reference_fold_fuse_weight_grad,
    [OP_GLOBAL_AVERAGE_POOL_GRAD] = reference_global_average_pool_grad,
    [OP_RELU_GRAD] = reference_relu_grad,
    [OP_MAX_POOL_GRAD] = reference_max_pool_grad,
    [OP_EXCITE_GRAD] = reference_excite_grad,
    [OP_CHANNEL_SLICE] = reference_channel_slice,
    [OP_CROSS_ENTROPY_GRAD] = reference_cross_entropy_grad,
    [OP_KD_LOSS_GRAD] = reference_kd_loss_grad,
    [OP_FEATURE_LOSS_GRAD] = reference_feature_loss_grad,
    [OP_IMAGES] = reference_images,
    [OP_PAD_CHANNELS] = reference_pad_channels,
    [OP_CONVERT] = reference_convert,
    [OP_LOSS_SCALE] = reference_loss_scale,
    [OP_SCALE] = reference_scale,
    [OP_METRIC_ADD] = reference_metric_add,
    [OP_METRIC_WATCH] = reference_metric_watch,
    [OP_SUM_SQUARES] = reference_sum_squares,
    [OP_COUNT_NOT_FINITE] = reference_count_not_finite,
    [OP_CLIP_FACTOR] = reference_clip_factor,
    [OP_EMA_UPDATE] = reference_ema_update,
    [OP_LARS_RATE] = reference_lars_rate,
    [OP_SGD_UPDATE] = reference_sgd_update,
};

static const char *const op_names[OP_COUNT] = {
#define OP(id, name, ...) [id] = name,
#include "graph/ops.def"
#undef OP
};

static int check_dtypes(const kernel_request *request, const char *name)
{
    for (int i = 0; i < request->node.n_in; i++)
        CHECK(tensor_count(&request->in[i]) == 0 || request->in[i].dtype != DTYPE_F32, ERROR_KERNEL,
              "%s (%s): input %d is float32, the reference backend computes in float64", request->label, name, i);
    for (int i = 0; i < request->node.n_out; i++)
        CHECK(tensor_count(&request->out[i]) == 0 || request->out[i].dtype == DTYPE_F64 ||
                  request->out[i].dtype == DTYPE_U8,
              ERROR_KERNEL, "%s (%s): output %d is not float64, the reference backend computes in float64",
              request->label, name, i);
    return 0;
}

static size_t workspace_of(const kernel_request *request)
{
    switch (request->node.op) {
    case OP_CONV2D:
    case OP_CONV2D_DGRAD:
    case OP_CONV2D_WGRAD:
        return reference_conv2d_workspace(request);
    case OP_UPSAMPLE_BN_SUMS:
    case OP_UPSAMPLE_BN:
    case OP_UPSAMPLE_BN_INFERENCE:
    case OP_UPSAMPLE_BN_GRAD_SUMS:
    case OP_UPSAMPLE_BN_GRAD:
        return reference_upsample_bn_workspace(request);
    case OP_LINEAR_BN_DGRAD:
        return reference_linear_bn_workspace(request);
    default:
        return 0;
    }
}

static int prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace_bytes)
{
    (void)self;
    unsigned op = request->node.op;
    CHECK(op < OP_COUNT && op_functions[op], ERROR_KERNEL, "%s: the reference backend has no kernel for %s",
          request->label, op < OP_COUNT ? op_names[op] : "this op");
    TRY(check_dtypes(request, op_names[op]));

    kernel *k = malloc(sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a kernel");
    k->request = *request;
    k->request.label = NULL; /* the caller's text may not outlive the call */
    k->run = op_functions[op];
    *workspace_bytes = workspace_of(request);
    *out = k;
    return 0;
}

static int launch(backend *self, kernel *k, const kernel_args *args)
{
    return k->run((const reference *)self, &k->request, args);
}

static void release(backend *self, kernel *k)
{
    (void)self;
    free(k);
}

static void *allocate(backend *self, size_t bytes)
{
    (void)self;
    size_t rounded = (bytes + 63) / 64 * 64;
    return rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
}

static void free_memory(backend *self, void *memory)
{
    (void)self;
    free(memory);
}

static const char *description(backend *self)
{
    return ((reference *)self)->description;
}

static void close_backend(backend *self)
{
    blas_close(&((reference *)self)->blas);
    free(self);
}

static const backend_ops reference_ops = {
    .name = "reference",
    .real = DTYPE_F64,
    .activation = DTYPE_F64,
    .op_error = 1e-12,
    .host_memory = true,
    .prepare = prepare,
    .launch = launch,
    .release = release,
    .alloc = allocate,
    .free = free_memory,
    .write = host_memory_write,
    .read = host_memory_read,
    .copy = host_memory_copy,
    .zero = host_memory_zero,
    .synchronize = host_memory_synchronize,
    .description = description,
    .close = close_backend,
};

int backend_reference_open(backend **out, int threads)
{
    CHECK(threads >= 1, ERROR_USAGE, "the reference backend needs at least one thread, not %d", threads);
    reference *self = calloc(1, sizeof *self);
    CHECK(self, ERROR_MEMORY, "no memory for the reference backend");
    self->base.ops = &reference_ops;
    int status = blas_open(&self->blas, threads);
    if (status < 0) {
        free(self);
        return status;
    }
    snprintf(self->description, sizeof self->description, "reference: float64, %s", self->blas.description);
    *out = &self->base;
    return 0;
}

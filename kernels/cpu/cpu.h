/* Inside the CPU backend: its state, its kernels, and the functions that its op table names.
 *
 * Every loop is split into one fixed range per thread, whoever runs it, and partial sums are added
 * in that order. So results depend on the number of threads and on nothing else.
 */
#ifndef TESKD_KERNELS_CPU_CPU_H
#define TESKD_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "loops.h"
#include "onednn.h"

typedef struct {
    backend base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    const cpu_loops *loops;
    int threads;
    unsigned saved_mxcsr; /* of the opening thread */
    size_t last_cache;    /* bytes of the last-level cache */
    char description[200];
} cpu_backend;

/* Below this many elements waking the threads costs more than they save. */
enum { PARALLEL_ELEMENTS = 16384 };

enum { CPU_MAX_CALLS = 4, CPU_MAX_OFFSETS = 8 };

/* What prepare made. The meaning of the slots is the op's own matter. */
struct kernel {
    kernel_request request;
    int (*launch)(const cpu_backend *self, const kernel *k, const kernel_args *args);
    onednn_call call[CPU_MAX_CALLS];
    size_t offset[CPU_MAX_OFFSETS]; /* into the workspace */
    int64_t chunk;                  /* rows, or groups, taken at a time */
};

typedef int cpu_prepare(const cpu_backend *self, kernel *k, size_t *workspace);
typedef int cpu_launch(const cpu_backend *self, const kernel *k, const kernel_args *args);

/* Takes `bytes` of the workspace being laid out; returns their 64-byte aligned offset. */
static inline size_t workspace_take(size_t *workspace, size_t bytes)
{
    size_t at = *workspace;
    *workspace += (bytes + 63) / 64 * 64;
    return at;
}

static inline void *workspace_at(const kernel_args *args, size_t offset)
{
    return (char *)args->workspace + offset;
}

/* First element of part `part` of `parts` of `count` elements; part `parts` is the end. */
static inline int64_t part_begin(int64_t count, int part, int parts)
{
    return count / parts * part + (count % parts) * part / parts;
}

/* Stores past the cache save the read of each line, but only pay where the result cannot stay in
 * the cache anyway, and need whole vectors. */
static inline bool cpu_streams(const cpu_backend *self, const tensor_desc *t, const void *memory)
{
    return tensor_bytes(t) >= self->last_cache && t->dim[3] % 16 == 0 && (uintptr_t)memory % 64 == 0;
}

/* batch_norm.c: sums over the rows, in float64, of x (and of x^2 behind it when `squares`);
 * `workspace` holds column_sums_bytes. */
size_t column_sums_bytes(const cpu_backend *self, int64_t channels);
void column_sums(const cpu_backend *self, const float *x, int64_t rows, int64_t channels, bool squares, double *sums,
                 void *workspace);

/* resample.c: the bilinear upsample along an axis of n values: from which of them each of the 2n outputs comes, and to
 * which outputs each of the n goes. */
void upsample_taps(upsample_tap *tap, int32_t n);
void upsample_readers(upsample_sources *source, int32_t n);

cpu_prepare conv2d_prepare, conv2d_dgrad_prepare, conv2d_wgrad_prepare;                      /* convolution.c */
cpu_prepare linear_prepare, linear_dgrad_prepare, linear_wgrad_prepare;                      /* linear.c */
cpu_prepare concat_linear_prepare, concat_linear_dgrad_prepare, concat_linear_wgrad_prepare; /* linear.c */
cpu_prepare channel_moments_prepare, linear_bn_sums_prepare, linear_bn_prepare;              /* linear_bn.c */
cpu_prepare linear_bn_wgrad_prepare, linear_bn_dgrad_prepare;
cpu_launch linear_bn_grad_sums_launch;
cpu_prepare bn_prepare; /* batch_norm.c */
cpu_launch bn_sums_launch, bn_normalize_launch, bn_inference_launch, bn_running_launch, zero_launch;
cpu_launch bn_grad_sums_launch, bn_grad_launch, bn_param_grad_launch;
cpu_prepare upsample2x_prepare, pool_prepare; /* pointwise.c */
cpu_launch add_launch, concat_launch, channel_slice_launch, upsample2x_launch, upsample2x_grad_launch;
cpu_prepare upsample_bn_prepare; /* upsample_bn.c */
cpu_launch upsample_bn_sums_launch, upsample_bn_launch, upsample_bn_inference_launch;
cpu_launch upsample_bn_grad_sums_launch, upsample_bn_grad_launch;
cpu_launch patchify_launch, unpatchify_launch, fold_fuse_weight_launch, fold_fuse_weight_grad_launch;
cpu_launch global_average_pool_launch, global_average_pool_grad_launch;
cpu_prepare max_pool_prepare; /* pooling.c */
cpu_launch max_pool_launch, max_pool_grad_launch;
cpu_prepare excite_prepare; /* activation.c */
cpu_launch relu_launch, relu_grad_launch, excite_launch, excite_grad_launch;
cpu_prepare sum_squares_prepare; /* update.c */
cpu_launch sum_squares_launch, count_not_finite_launch, clip_factor_launch, lars_rate_launch, sgd_update_launch,
    ema_update_launch;
cpu_launch loss_scale_launch, scale_launch, metric_add_launch, metric_watch_launch;
cpu_launch images_launch, pad_channels_launch, convert_launch;                      /* images.c */
cpu_launch cross_entropy_launch, kd_loss_launch, feature_loss_launch, top_k_launch; /* losses.c */
cpu_launch cross_entropy_grad_launch, kd_loss_grad_launch, feature_loss_grad_launch;

#endif

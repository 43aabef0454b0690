/* What the parts of the CUDA backend share. Private to kernels/cuda/.
 *
 * Activations and their gradients are NHWC of one `real` dtype (float32, float16 or bfloat16); weights of convolutions
 * and matrix products are read in that dtype (16-bit copies of the float32 masters). Weight gradients, biases, batch
 * normalisation's parameters and statistics, momentum and EMA are float32. Sums and losses are float64. Everything is
 * launched on one stream in order; uploads run beside it on another. Host code is C11, kernels are CUDA C++ in .cu
 * files behind C functions. The functions are called on the thread that opened the backend.
 */
#ifndef TESKD_KERNELS_CUDA_BACKEND_H
#define TESKD_KERNELS_CUDA_BACKEND_H

#include "kernels/backend.h"
#include "timing.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cuda_convolutions cuda_convolutions; /* cuDNN: convolution.c */
typedef struct cuda_products cuda_products;         /* cuBLASLt: cublaslt_products.c */

struct cuda_libraries; /* libraries.h */

/* Pinned memory through which small writes go. */
typedef struct {
    char *memory;
    cudaEvent_t *copied; /* of each slot: its last copy is done */
    unsigned next;
} cuda_staging;

/* A row of timestamps. */
typedef struct {
    cudaEvent_t *events;
    uint32_t n;
} cuda_times;

typedef struct {
    cudaEvent_t uploaded; /* of the copy stream */
    cudaEvent_t released; /* of the stream */
} cuda_lane;

typedef struct {
    backend base;
    backend_ops table;
    dtype real;         /* of activations */
    bool tf32;          /* float32 products may use TF32 tensor cores */
    bool deterministic; /* the same bits every time */
    int device;         /* CUDA's number of the GPU */
    char gpu_id[32];    /* "0000:1b:00.0": the same for whoever sees this GPU of this host */
    cudaStream_t stream, copy_stream;
    cuda_timer timer;
    int multiprocessors;
    bool capturing;
    cuda_staging staging;
    cuda_lane lanes[UPLOAD_LANES];
    cuda_times times[TIMESTAMP_ROWS];
    struct cuda_libraries *libraries;
    cuda_convolutions *convolutions;
    cuda_products *products;
    char description[640];
} cuda_backend;

enum { CUDA_MAX_OFFSETS = 8, CUDA_KERNEL_NAME_BYTES = 128 };

typedef int cuda_launch(const cuda_backend *self, const kernel *k, const kernel_args *args);

/* Chooses k->launch and adds to the workspace; k->request is set. Returns ERROR_KERNEL when there is no way. */
typedef int cuda_prepare(cuda_backend *self, kernel *k, size_t *workspace);

struct kernel {
    kernel_request request;
    char name[CUDA_KERNEL_NAME_BYTES]; /* "<op> of <label>", as profilers show it */
    cuda_launch *launch;
    size_t offset[CUDA_MAX_OFFSETS]; /* of parts of the workspace */
    void *plan;                      /* cuDNN's or cuBLASLt's; NULL for native kernels */
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

/* 0, or ERROR_KERNEL with "<what>: <the runtime's text>", and how to find the cause where it may lie elsewhere. */
int cuda_check(cudaError_t status, const char *what);

/* The same for what a query of an event or a stream gave: not ready is no error. */
int cuda_check_query(cudaError_t status, const char *what, bool *ready);

/* Entries of the backend's table (kernels/backend.h), the same for a GPU and for the tests' emulated device. */
int cuda_kernel_prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace);
int cuda_kernel_launch(backend *self, kernel *k, const kernel_args *args);
void cuda_kernel_release(backend *self, kernel *k);
void *cuda_memory_alloc(backend *self, size_t bytes);
void cuda_memory_free(backend *self, void *memory);
int cuda_memory_free_bytes(backend *self, size_t *bytes);
int cuda_memory_write(backend *self, void *device, const void *host, size_t bytes);
int cuda_memory_write_ready(backend *self, size_t bytes, bool *ready);
int cuda_memory_read(backend *self, void *host, const void *device, size_t bytes);
int cuda_memory_copy(backend *self, void *to, const void *from, size_t bytes);
int cuda_memory_zero(backend *self, void *device, size_t bytes);
int cuda_synchronize(backend *self);
int cuda_capture_begin(backend *self);
int cuda_capture_end(backend *self, captured_step **out);
int cuda_replay(backend *self, captured_step *r);
void cuda_release_captured(backend *self, captured_step *r);
int cuda_timestamp(backend *self, timestamp_row row, uint32_t number);
int cuda_elapsed(backend *self, timestamp_row row, uint32_t n, double *seconds);
void *cuda_pinned_alloc(backend *self, size_t bytes);
void cuda_pinned_free(backend *self, void *memory);
int cuda_upload(backend *self, int lane, void *device, const void *host, size_t bytes);
int cuda_upload_use(backend *self, int lane);
int cuda_upload_release(backend *self, int lane);
int cuda_upload_done(backend *self, int lane, bool *done);
const char *cuda_describe(backend *self);

/* The table of a backend whose `real`, `tf32` and `deterministic` are set, without `close`. */
backend_ops cuda_table(const cuda_backend *self);

/* Streams, events and pinned memory of the current device. After a failure, too, they are closed; closing what was
 * never opened does nothing. */
int cuda_streams_open(cuda_backend *self);
void cuda_streams_close(cuda_backend *self);
int cuda_staging_open(cuda_staging *staging);
void cuda_staging_close(cuda_staging *staging);

/* Opens the libraries, and of them what answers convolutions.h and products.h; `plan_cache` as in cuda_open.h. After a
 * failure, too, they are closed. */
int cuda_libraries_attach(cuda_backend *self, bool tune, const char *plan_cache);
void cuda_libraries_detach(cuda_backend *self);

/* "cuDNN 9.19.0, cuBLASLt 13.0.2", and why what is chosen is not kept, where it is not. */
void cuda_libraries_text(const cuda_backend *self, char *text, size_t bytes);

/* Native kernels, one pair or launch an op of graph/ops.def; in .cu files by topic. The prepare ones say the workspace.
 */
cuda_prepare cuda_bn_prepare, cuda_pool_prepare, cuda_loss_prepare, cuda_sum_squares_prepare, cuda_lars_rate_prepare,
    cuda_upsample_bn_sums_prepare, cuda_upsample_bn_grad_sums_prepare;
cuda_launch cuda_bn_sums, cuda_bn_normalize, cuda_bn_running, cuda_bn_inference, cuda_bn_grad_sums, cuda_bn_grad,
    cuda_bn_param_grad, cuda_add, cuda_concat, cuda_channel_slice, cuda_upsample2x, cuda_upsample2x_grad,
    cuda_upsample_bn_sums, cuda_upsample_bn, cuda_upsample_bn_inference, cuda_upsample_bn_grad_sums,
    cuda_upsample_bn_grad, cuda_patchify, cuda_unpatchify, cuda_fold_fuse_weight, cuda_fold_fuse_weight_grad,
    cuda_global_average_pool, cuda_global_average_pool_grad, cuda_relu, cuda_relu_grad, cuda_max_pool,
    cuda_max_pool_grad, cuda_excite, cuda_excite_grad, cuda_loss, cuda_sum_squares, cuda_count_not_finite,
    cuda_clip_factor, cuda_lars_rate, cuda_sgd_update, cuda_linear_bn_sums, cuda_linear_bn_grad_sums,
    cuda_linear_bn_wgrad, cuda_ema_update, cuda_loss_scale, cuda_scale, cuda_metric_add, cuda_metric_watch, cuda_images,
    cuda_pad_channels, cuda_convert_op;

/* kernels/backend.h: batch_launches. For lars_rate, sgd_update, ema_update, bn_running, sum_squares, metric_add, and
 * losses. */
int cuda_batch_launches(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out);
int cuda_batch_losses(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out);

/* float32 column sums of a [rows, columns] matrix of the given dtype: the gradient of a bias. Deterministic. */
size_t cuda_column_sums_bytes(int64_t rows, int64_t columns);
int cuda_column_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns, float *sums,
                     void *workspace);

/* Converts `count` float32 elements to the dtype `type` (the 16-bit copy of a master weight). */
int cuda_convert(const cuda_backend *self, const float *from, uint8_t type, int64_t count, void *to);

/* The other way (a weight gradient that a library gives in 16 bits only). */
int cuda_convert_to_float(const cuda_backend *self, const void *from, uint8_t type, int64_t count, float *to);

/* The float64 [2, columns] sums of a matrix's columns and of their squares: bn_sums. Deterministic. */
size_t cuda_channel_sums_bytes(int64_t rows, int64_t columns);
int cuda_channel_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns,
                      double *sums, void *workspace);

/* Such sums from float32 ones. */
int cuda_widen_sums(const cuda_backend *self, const float *sum, const float *square_sum, int64_t columns, double *sums);

/* Adds a float32 bias [columns] to every row of a matrix of the dtype `type`, where a library cannot do it itself. */
int cuda_add_bias(const cuda_backend *self, void *y, uint8_t type, int64_t rows, int64_t columns, const float *bias);

/* cuDNN: conv2d, conv2d_dgrad, conv2d_wgrad that are no matrix products. */
cuda_prepare cuda_conv2d_prepare, cuda_conv2d_dgrad_prepare, cuda_conv2d_wgrad_prepare;

/* cuBLASLt: linear, concat_linear, their gradients, and 1x1 convolutions. */
cuda_prepare cuda_linear_prepare, cuda_linear_dgrad_prepare, cuda_linear_wgrad_prepare, cuda_concat_linear_prepare,
    cuda_concat_linear_dgrad_prepare, cuda_concat_linear_wgrad_prepare, cuda_channel_moments_prepare,
    cuda_linear_bn_prepare, cuda_linear_bn_dgrad_prepare;

/* conv2d, or concat_linear, with the sums of its result; `desc` is the layer as a convolution that asks for statistics,
 * NULL where it is none; `alone` prepares the layer without them. convolution_sums.c. */
struct cuda_convolution_desc;
int cuda_layer_sums_prepare(cuda_backend *self, kernel *k, const struct cuda_convolution_desc *desc,
                            cuda_prepare *alone, size_t *workspace);

/* Milliseconds of a launch of a prepared kernel, on memory taken for it; infinite when it fails, not a number when
 * there is no memory to measure it on. kernel_time.c. */
float cuda_kernel_time(cuda_backend *self, const kernel *k, size_t workspace);

#ifdef __cplusplus
}
#endif
#endif

/* Convolutions on a device: what is asked for, and a prepared one. The graph's ops are brought to these in
 * convolution_ops.c; library/cudnn_convolutions.c answers with cuDNN. Nothing of cuDNN is seen here, so that a test can
 * answer with plain C.
 */
#ifndef TESKD_KERNELS_CUDA_CONVOLUTIONS_H
#define TESKD_KERNELS_CUDA_CONVOLUTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cuda_convolutions cuda_convolutions;
typedef struct cuda_convolution cuda_convolution;

typedef enum {
    CUDA_CONVOLUTION_FORWARD, /* y = conv(x, w) + bias */
    CUDA_CONVOLUTION_DGRAD,   /* dx from dy and w */
    CUDA_CONVOLUTION_WGRAD    /* dw from x and dy */
} cuda_convolution_kind;

/* x {batch, height, width, channels}, w {out_channels, kernel, kernel, channels / groups},
 * y {batch, out_height, out_width, out_channels}, dense, all of dtype `type`; sums are float32. */
typedef struct cuda_convolution_desc {
    cuda_convolution_kind kind;
    int32_t batch, height, width, channels, out_height, out_width, out_channels;
    int32_t kernel, stride, pad, groups;
    uint8_t type;
    bool bias;              /* forward: + bias {out_channels} of the dtype `type` */
    bool statistics;        /* forward, without bias: also the float32 sums of y and y^2 over its positions */
    bool only_tensor_cores; /* no answer is better than a slow one: the caller has another way */
} cuda_convolution_desc;

/* Chooses an algorithm; `workspace` is what its launches need. ERROR_KERNEL when there is none. */
int cuda_convolution_prepare(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_convolution **out,
                             size_t *workspace);

/* Operands that the kind does not have are NULL; what it computes is written. */
typedef struct {
    void *x, *w, *y;
    const void *bias;
    float *sum, *square_sum; /* {out_channels}, 16-byte aligned */
    void *workspace;
} cuda_convolution_args;

/* How a convolution with statistics is better done on this GPU. */
typedef enum {
    CUDA_SUMS_UNKNOWN, /* to be measured */
    CUDA_SUMS_FUSED,   /* as `desc` says */
    CUDA_SUMS_APART    /* without statistics, and by a kernel that reads y again */
} cuda_sums_way;

cuda_sums_way cuda_sums_way_known(cuda_convolutions *self, const cuda_convolution_desc *desc);
void cuda_sums_way_keep(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_sums_way way);

int cuda_convolution_run(const cuda_convolution *convolution, const cuda_convolution_args *args);
void cuda_convolution_release(cuda_convolution *convolution);

#endif

/* Opens cuDNN's answer to convolutions.h. */
#ifndef TESKD_KERNELS_CUDA_CONVOLUTION_H
#define TESKD_KERNELS_CUDA_CONVOLUTION_H

#include "kernels/cuda/lower/convolutions.h"
#include "kernels/cuda/lower/timing.h"
#include "libraries.h"

typedef struct {
    cudaStream_t stream;
    cuda_timer *timer;  /* where `tune` is set */
    bool tf32;          /* float32 convolutions may use TF32 tensor cores */
    bool deterministic; /* the same bits every time: no choice by time, no plan that is known to vary */
    bool tune;          /* times the most promising plans at the first use of a shape */
    const char *cache;  /* folder of the plan cache; empty for the user's, NULL for none */
    const char *model;  /* of the GPU, for the name of its folder there */
    const char *device; /* cuDNN's JSON description of a GPU that is not there: plans can be prepared, not run; NULL for
                           the current GPU */
} cuda_convolutions_options;

/* The libraries and the stream must outlive it. ERROR_KERNEL without cuDNN. */
int cuda_convolutions_open(cuda_convolutions **out, const cuda_libraries *libraries,
                           const cuda_convolutions_options *options);
void cuda_convolutions_close(cuda_convolutions *self);

/* Why plans are not kept on disk though a folder was given; empty where they are. */
const char *cuda_convolutions_cache_problem(const cuda_convolutions *self);

/* What was chosen. */
typedef struct {
    size_t workspace;
    bool tensor_cores, run_time_compiled, from_cache;
} cuda_convolution_choice;
cuda_convolution_choice cuda_convolution_chosen(const cuda_convolution *convolution);

#endif

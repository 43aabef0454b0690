/* Opens a GPU as a backend. */
#ifndef TESKD_KERNELS_CUDA_OPEN_H
#define TESKD_KERNELS_CUDA_OPEN_H

#include "kernels/backend.h"

struct cuda_libraries;
struct CUstream_st;

/* Of activations and of what products read; weights, sums and statistics stay float32 or wider. */
typedef enum { CUDA_FP16, CUDA_BF16, CUDA_TF32, CUDA_FP32 } cuda_precision;

typedef struct {
    cuda_precision precision;
    bool deterministic;     /* the same bits in every run on the same kind of GPU */
    bool tune;              /* time the convolutions' plans at the first use of a shape */
    int local_rank;         /* of the ranks on this host: chooses the GPU; where they are fewer, ranks share them */
    const char *plan_cache; /* folder; NULL or empty for the user's own */
} cuda_options;

/* ERROR_SETTINGS when the GPU has not the precision; ERROR_KERNEL when there is no GPU, it or its driver cannot be used
 * or a library is missing: the message says which and what helps. Closed through its table. */
int backend_cuda_open(backend **out, const cuda_options *options);

/* Of a CUDA backend: NVIDIA's libraries (kernels/cuda/library/libraries.h), and the stream of its launches, a
 * cudaStream_t. */
const struct cuda_libraries *cuda_backend_libraries(const backend *device);
struct CUstream_st *cuda_backend_stream(const backend *device);

#endif

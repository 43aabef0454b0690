/* How long something takes on the GPU, for choosing between ways to compute the same. */
#ifndef TESKD_KERNELS_CUDA_TIMING_H
#define TESKD_KERNELS_CUDA_TIMING_H

#include <cuda_runtime_api.h>

/* Starts the work on the stream; a failure is an answer. */
typedef int timed_work(const void *what);

/* Milliseconds of one time, of several after a first that does not count; infinite when it fails. Waits. The runtime's
 * last error is as if nothing had been tried. */
float cuda_time_work(cudaStream_t stream, timed_work *work, const void *what);

#endif

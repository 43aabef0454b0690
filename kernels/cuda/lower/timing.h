/* How long something takes on the GPU, for choosing between ways to compute the same. */
#ifndef TESKD_KERNELS_CUDA_TIMING_H
#define TESKD_KERNELS_CUDA_TIMING_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

/* Where work is measured. A backend has one, which warms the GPU up once. */
typedef struct {
    cudaStream_t stream;
    bool is_warm; /* the GPU's clocks have risen */
} cuda_timer;

/* Starts the work on the stream; a failure is an answer. */
typedef int timed_work(const void *what);

/* Does it once and waits: whether it works. The runtime's last error is as if nothing had been tried. */
bool cuda_work_works(cudaStream_t stream, timed_work *work, const void *what);

/* Milliseconds that the GPU takes for it once, replayed from a capture as in a step, so that the host's part does not
 * count; infinite when it fails. What takes several times `best` is not measured closely. Waits. The runtime's last
 * error is as if nothing had been tried. */
float cuda_time_work(cuda_timer *timer, timed_work *work, const void *what, float best);

/* Memory for it, full of zeros: a piece for each of the sizes, aligned to 256. False when there is not enough.
 * cudaFree of the first frees all. */
bool cuda_timing_memory(cudaStream_t stream, int pieces, const size_t *bytes, void **piece);

#endif

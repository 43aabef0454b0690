/* The CUDA backend on the emulated device. */
#ifndef TESKD_TESTS_EMULATED_BACKEND_H
#define TESKD_TESTS_EMULATED_BACKEND_H

#include "kernels/cuda/lower/cuda_backend.h"
#include "emulated.h"

/* The deterministic backend of float32, float16 or bfloat16 on a GPU with so many multiprocessors. Closed through its
 * table. */
int emulated_backend_open(cuda_backend **out, dtype real, int multiprocessors);

#endif

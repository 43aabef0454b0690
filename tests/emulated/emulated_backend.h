/* The CUDA backend on the emulated device. */
#ifndef TESKD_TESTS_EMULATED_BACKEND_H
#define TESKD_TESTS_EMULATED_BACKEND_H

#include "cuda_backend.h"

/* `real` is DTYPE_F32, DTYPE_F16 or DTYPE_BF16. Closed through its table. */
int emulated_backend_open(cuda_backend **out, dtype real, int multiprocessors);

#endif

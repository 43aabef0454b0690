/* Memory of the GPU that NCCL reaches directly from every GPU of the host: its own, registered as a symmetric window.
 *
 * NCCL has windows from 2.27 on. A window that is being registered is written to by a thread of NCCL: it must stay
 * until the registration, or the abort of its communicator, is done. One thread besides. */
#ifndef TESKD_DIST_NCCL_WINDOW_H
#define TESKD_DIST_NCCL_WINDOW_H

#include <nccl.h>
#include <stdbool.h>
#include <stddef.h>

struct cuda_libraries; /* kernels/cuda/library/libraries.h */

typedef struct nccl_window nccl_window;

/* Memory for a window, on the current GPU. NULL where NCCL has no windows or there is not enough memory. */
nccl_window *nccl_window_alloc(const struct cuda_libraries *nccl, size_t bytes);

void *nccl_window_memory(const nccl_window *window);

/* Registers all of it. Every rank calls it, for as many bytes. Whatever it answers, it is done when the communicator's
 * state says so. */
ncclResult_t nccl_window_register(nccl_window *window, ncclComm_t communicator);

/* After a registration without error: whether there is a window. NCCL makes none where the GPUs cannot reach each
 * other's memory. */
bool nccl_window_exists(const nccl_window *window);

/* This rank's part. Nothing may be at work in the memory. Done as a registration is. */
ncclResult_t nccl_window_deregister(nccl_window *window, ncclComm_t communicator);

/* Frees the memory: after it was deregistered, or after the end of the communicator. NULL is fine. */
void nccl_window_free(nccl_window *window);

#endif

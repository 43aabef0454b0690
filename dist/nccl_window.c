/* Owns a piece of NCCL's memory and its window. No state but theirs; threads as the header says. */
#include "nccl_window.h"

#include "kernels/cuda/library/libraries.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

struct nccl_window {
    const cuda_libraries *nccl;
    void *memory;
    size_t bytes;
    ncclWindow_t handle; /* written by NCCL; NULL: none */
};

static bool has_windows(const cuda_libraries *nccl)
{
    return nccl->ncclMemAlloc && nccl->ncclMemFree && nccl->ncclCommWindowRegister && nccl->ncclCommWindowDeregister;
}

nccl_window *nccl_window_alloc(const cuda_libraries *nccl, size_t bytes)
{
    nccl_window *window = has_windows(nccl) ? calloc(1, sizeof *window) : NULL;
    if (!window)
        return NULL;
    *window = (nccl_window){.nccl = nccl, .bytes = bytes};
    if (nccl->ncclMemAlloc(&window->memory, bytes) == ncclSuccess)
        return window;
    cudaGetLastError(); /* no error of the next launch */
    free(window);
    return NULL;
}

void *nccl_window_memory(const nccl_window *window)
{
    return window->memory;
}

ncclResult_t nccl_window_register(nccl_window *window, ncclComm_t communicator)
{
    return window->nccl->ncclCommWindowRegister(communicator, window->memory, window->bytes, &window->handle,
                                                NCCL_WIN_COLL_SYMMETRIC);
}

bool nccl_window_exists(const nccl_window *window)
{
    return window->handle != NULL;
}

ncclResult_t nccl_window_deregister(nccl_window *window, ncclComm_t communicator)
{
    ncclWindow_t handle = window->handle;
    window->handle = NULL;
    return handle ? window->nccl->ncclCommWindowDeregister(communicator, handle) : ncclSuccess;
}

void nccl_window_free(nccl_window *window)
{
    if (!window)
        return;
    window->nccl->ncclMemFree(window->memory);
    cudaGetLastError();
    free(window);
}

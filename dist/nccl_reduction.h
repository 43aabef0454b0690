/* Sums between GPUs by NCCL, on a stream of their own beside the launches.
 *
 * The sums are ncclSum; a mean is the caller's division. Numbers of 16 bits are rounded wherever NCCL adds two of them.
 * The control channel of `ranks` is what ends a wait for a dead peer: NCCL itself may never notice one. Needs no header
 * of CUDA or NCCL. One thread, the one that uses `ranks`; the GPU is the one that is current on it. */
#ifndef TESKD_DIST_NCCL_REDUCTION_H
#define TESKD_DIST_NCCL_REDUCTION_H

#include "dist/reduction.h"

struct cuda_libraries; /* kernels/cuda/library/libraries.h */
struct CUstream_st;    /* what a cudaStream_t points to */

typedef struct {
    /* How long opening (two minutes at most), starting a sum, and a wait may take while every rank is alive. Longer
     * than what is launched between two waits and a peer's longest pause (a checkpoint that only rank 0 writes)
     * together. */
    double deadline_seconds;

    /* Sums in a fixed order: NCCL_ALGO=Ring and NCCL_PROTO=Simple, unless the environment says otherwise, and no memory
     * of NCCL's. */
    bool deterministic;
} nccl_options;

/* Every rank calls it, on a GPU of its own; after a failure of any rank all return the same error. `compute` is the
 * stream of the launches. `libraries`, `ranks` and `compute` must outlive the reduction.
 *
 * After a failure NCCL is aborted at once, in the background, so that its kernels leave the GPU; every later call
 * returns the same error. What waits for the GPU without a limit (freeing its memory, say) should not be called then:
 * NCCL may be unable to end. `close` waits a few seconds for it and leaves behind what has not ended by then.
 * Captures that hold sums must be released before an orderly close: NCCL waits for them.
 *
 * `alloc` gives memory where all ranks are on one host and NCCL (2.27 or newer) lets each GPU reach it on every other
 * one. Where a rank is refused, none gets any, and sums go on without. */
int nccl_reduction_open(reduction **out, const struct cuda_libraries *libraries, comm *ranks,
                        struct CUstream_st *compute, const nccl_options *options);

/* Ranks of one host that have fewer GPUs than they are. */
typedef struct {
    int ranks, gpus; /* ranks == 0: there is no such host */
    char host[256];
} gpu_sharing;

/* Whether each rank has a GPU that no other one has, which NCCL insists on; else the first host where it is not so.
 * Every rank calls it, with the PCI bus id of its GPU ("0000:1b:00.0"). Parts of one GPU (MIG) have the same id and
 * count as one. */
int nccl_find_sharing(comm *ranks, const char *gpu_id, gpu_sharing *found);

#endif

/* All-reduce (sums) of memory that kernels work on, in order with the launches.
 *
 * Every rank starts the same reductions in the same order. Where memory is the host's, or goes through it, comm.h does
 * the work; between GPUs NCCL does, on a stream of its own. One thread. */
#ifndef TESKD_DIST_REDUCTION_H
#define TESKD_DIST_REDUCTION_H

#include "dist/comm.h"

typedef struct reduction reduction;

typedef struct {
    const char *name; /* "MPI", "MPI through host memory", "NCCL 2.28.9" */

    /* start, finish and sum may be captured together with launches (kernels/backend.h). */
    bool capturable;

    /* Starts to sum, in place, `count` elements at `data`, as the launches so far leave them. */
    int (*start)(reduction *self, void *data, size_t count, comm_dtype type);

    /* Launches from here on see the sums of everything started. */
    int (*finish)(reduction *self);

    /* A sum that launches from here on see; what was started before may stay under way. */
    int (*sum)(reduction *self, void *data, size_t count, comm_dtype type);

    /* Lets started reductions advance and sees whether the peers are still there; cheap, for between two launches. */
    int (*progress)(reduction *self);

    /* Waits until the device has done everything that was launched and reduced, while watching the peers: returns
     * ERROR_COMM, and never hangs, when one is gone. */
    int (*synchronize)(reduction *self);

    /* Optional. Memory of the device that is reduced faster, aligned as the device's own; one piece at a time. Every
     * rank calls it, for as many bytes, with no reduction under way. `*memory` is NULL, on all ranks, where there is
     * none: the device's own does. `free` waits for what is under way; before `close`, and after the release of
     * captures that sum in the memory. */
    int (*alloc)(reduction *self, size_t bytes, void **memory);
    void (*free)(reduction *self, void *memory);

    /* After a failure reductions may be under way: then this frees what can be freed and returns at once. NULL is fine.
     */
    void (*close)(reduction *self);
} reduction_ops;

/* First member of each kind. */
struct reduction {
    const reduction_ops *ops;
};

#endif

/* Ends an NCCL communicator without hanging the process.
 *
 * ncclCommAbort and ncclCommDestroy block: they wait for NCCL's own threads, for the GPU, for other ranks of the host
 * and for captured graphs. So they run on a thread of their own, for which nobody waits longer than wanted. What has
 * not ended by then is left to the end of the process. */
#ifndef TESKD_DIST_NCCL_ENDING_H
#define TESKD_DIST_NCCL_ENDING_H

#include <nccl.h>
#include <stdbool.h>

typedef struct nccl_ending nccl_ending;

typedef ncclResult_t nccl_end(ncclComm_t communicator);

/* Calls `end` in the background. NULL where there is no thread to be had: then the communicator stays as it is. */
nccl_ending *nccl_ending_start(nccl_end *end, ncclComm_t communicator);

/* Waits for it; true: it has ended. Frees the record, or leaves it to the thread. NULL: nothing has ended. */
bool nccl_ending_wait(nccl_ending *ending, double seconds);

#endif

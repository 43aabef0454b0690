/* Ranks: one process each, all with the same program.
 *
 * Collectives are called by every rank in the same order, from the main thread. No call hangs
 * because a peer died: the control channel notices, the call returns ERROR_COMM and the message
 * names the rank and its host.
 */
#ifndef TESKD_DIST_COMM_H
#define TESKD_DIST_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct comm comm;

typedef enum { COMM_F32, COMM_F64, COMM_I64 } comm_dtype;

typedef struct {
    int rank, size;             /* of all ranks */
    int local_rank, local_size; /* of those on this host */
    const char *host;
    const char *library; /* "single process" or the MPI library's version line */
} comm_info;

/* A started all_reduce; caller memory, zero-initialised, opaque. */
typedef struct {
    uintptr_t handle[4];
} comm_request;

/* Opens MPI when a launcher started this process as one of several, else a communicator of one rank that
 * needs no MPI daemon. A process that finds itself alone though its batch system started several
 * (SLURM_NTASKS > 1 and this is a job step of several tasks) is refused with a message that says how to launch. */
int comm_open(comm **out);

/* A communicator of one rank, always. */
int comm_open_self(comm **out);

const comm_info *comm_describe(const comm *c);

/* Sum over the ranks, in place; the same bits on every rank. */
int comm_all_reduce(comm *c, void *data, size_t count, comm_dtype type);

/* The same, not waiting: `data` must not be touched until comm_wait. Requests complete in the order of start. */
int comm_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request);
int comm_wait(comm *c, comm_request *request);

/* Lets started requests advance; cheap, for between two pieces of computation. */
int comm_progress(comm *c);

int comm_broadcast(comm *c, void *data, size_t bytes, int root);
int comm_barrier(comm *c);

/* Every rank's `bytes` of data, in rank order, into `all` (size * bytes). */
int comm_all_gather(comm *c, const void *data, size_t bytes, void *all);

/* Agrees on the outcome of something that each rank did alone (a file opened, a setting checked): returns 0 where
 * all passed status 0; otherwise every rank gets the lowest failing rank's code and message ("rank R on HOST: ..."). */
int comm_agree(comm *c, int status);

/* Tells the peers that this rank fails, with error_message(), so that they return ERROR_COMM at
 * once; then leaves MPI without waiting for anyone. For use before a non-zero exit. */
void comm_abort(comm *c, int code);

/* Orderly end: all ranks call it. Frees c. */
void comm_close(comm *c);

#endif

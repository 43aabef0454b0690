/* The communicator over MPI: what its opening and its collectives share. */
#ifndef TESKD_DIST_COMM_MPI_H
#define TESKD_DIST_COMM_MPI_H

#include "comm_internal.h"
#include "control.h"
#include "host_groups.h"

#include <mpi.h>

typedef struct started_sum started_sum;

/* Ranks that add up among themselves. Calls on one MPI communicator must come in the same order on all of its ranks.
 * The second exchange of a sum starts whenever the first is done, so it has its own, where its order is that of the
 * sums. */
typedef struct {
    MPI_Comm scatter, gather; /* MPI_COMM_NULL: not used */
    int size, rank;
} sum_group;

typedef struct {
    comm base;
    MPI_Comm calls; /* all ranks */
    control *channel;
    rank_place *place; /* one per rank */
    host_groups groups;
    sum_group inside, across;           /* this rank's host; the ranks of all hosts that own the same slice */
    const void **part;                  /* room for one part per rank, within an addition */
    started_sum *first_sum, *idle_sums; /* under way, oldest first; free for reuse */
    bool is_part;                       /* of another communicator, which owns the channel and the place */
    bool blames_other;                  /* opening failed here because of another rank, which may know more */
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
} comm_mpi;

/* 0 for MPI_SUCCESS, else ERROR_COMM with MPI's text. */
int comm_mpi_status(const char *what, int mpi_code);

/* The same for a call while the program runs: its failure is most often a peer's death, to which the control channel
 * can put a name. */
int comm_mpi_explain(const comm_mpi *m, const char *what, int mpi_code);

/* Groups the ranks by the hosts in `place`, for sums; every rank calls it, with no sum under way. */
int comm_mpi_group(comm_mpi *m);
void comm_mpi_ungroup(comm_mpi *m);

int comm_mpi_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request);
int comm_mpi_wait(comm *c, comm_request *request);
int comm_mpi_progress(comm *c);
int comm_mpi_broadcast(comm *c, void *data, size_t bytes, int root);
int comm_mpi_barrier(comm *c);
int comm_mpi_all_gather(comm *c, const void *data, size_t bytes, void *all);

/* Moves the started sums on as far as they go. */
int comm_mpi_advance_sums(comm_mpi *m);

/* Whether the sum is done; then it is off the list, and the request is free. */
bool comm_mpi_take_sum(comm_mpi *m, comm_request *request);

/* Frees the records of finished sums. MPI may still hold the memory of others, after a failure: those stay. */
void comm_mpi_free_sums(comm_mpi *m);

#endif

/* The communicator over MPI: what its opening and its collectives share. */
#ifndef TESKD_DIST_COMM_MPI_H
#define TESKD_DIST_COMM_MPI_H

#include "comm_internal.h"
#include "control.h"

#include <mpi.h>

typedef struct started_sum started_sum;

typedef struct {
    comm base;
    /* Calls on one MPI communicator must come in the same order on all ranks. The second exchange of a sum starts
     * whenever the first is done, so it has its own, where its order is that of the sums. */
    MPI_Comm calls, second;
    control *channel;
    rank_place *place;                  /* one per rank */
    started_sum *first_sum, *idle_sums; /* under way, oldest first; free for reuse */
    bool is_part;                       /* of another communicator, which owns the channel and the place */
    bool blames_other;                  /* opening failed here because of another rank, which may know more */
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
} comm_mpi;

/* 0 for MPI_SUCCESS, else ERROR_COMM with MPI's text. */
int comm_mpi_status(const char *what, int mpi_code);

int comm_mpi_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request);
int comm_mpi_wait(comm *c, comm_request *request);
int comm_mpi_progress(comm *c);
int comm_mpi_broadcast(comm *c, void *data, size_t bytes, int root);
int comm_mpi_barrier(comm *c);
int comm_mpi_all_gather(comm *c, const void *data, size_t bytes, void *all);

/* Frees the records of finished sums. MPI may still hold the memory of others, after a failure: those stay. */
void comm_mpi_free_sums(comm_mpi *m);

#endif

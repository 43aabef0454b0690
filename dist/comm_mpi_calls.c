/* Owns the collectives over MPI but the sums (comm_mpi_sums.c), and the waits of both.
 * Invariant: MPI never blocks this process: only non-blocking calls are made, and every wait looks at the control
 * channel and at a clock. Threads: main thread only. */
#include "comm_mpi.h"

#include "base/clock.h"
#include "base/error.h"

#include <limits.h>

enum {
    PIECE_BYTES = 1 << 30, /* MPI counts are ints */
    BLAME_MS = 1000        /* how long the control channel may take to explain an MPI error */
};

/* An MPI error while the program runs is most often a peer's death, which the control channel can put a name to. */
int comm_mpi_explain(const comm_mpi *m, const char *what, int mpi_code)
{
    if (mpi_code == MPI_SUCCESS)
        return 0;
    TRY(control_await_failure(m->channel, BLAME_MS));
    return comm_mpi_status(what, mpi_code);
}

/* How long a wait has taken, without the time that this process itself was stopped: the peers may have been, too. */
typedef struct {
    double begin, last;
} patience;

static patience patience_begin(void)
{
    double now = clock_seconds();
    return (patience){now, now};
}

/* A rank whose watchdog lives may hang all the same. */
static int check_patience(const comm_mpi *m, const char *what, patience *p)
{
    static const double pause_seconds = 10.0;
    double limit = comm_patience(&m->base), now = clock_seconds();
    if (now - p->last > pause_seconds)
        p->begin += now - p->last;
    p->last = now;
    CHECK(now < p->begin + limit, ERROR_COMM,
          "%s has taken %g s, while every rank is alive: one of them hangs, or its network or disk does", what, limit);
    return 0;
}

int comm_mpi_wait(comm *c, comm_request *request)
{
    comm_mpi *m = (comm_mpi *)c;
    patience waits = patience_begin();
    for (int polls = 0;; clock_pause(&polls)) {
        TRY(comm_mpi_advance_sums(m));
        TRY(control_check(m->channel)); /* first: MPI may complete a call on what a dead peer left */
        if (comm_mpi_take_sum(m, request))
            return 0;
        TRY(check_patience(m, "an all-reduce", &waits));
    }
}

/* Waits for a call that has returned `mpi_code` and, on success, `request`. */
static int finish(comm_mpi *m, const char *what, int mpi_code, MPI_Request *request)
{
    TRY(comm_mpi_explain(m, what, mpi_code));
    patience waits = patience_begin();
    for (int polls = 0;; clock_pause(&polls)) {
        int done = 0;
        TRY(comm_mpi_advance_sums(m));
        TRY(comm_mpi_explain(m, what, MPI_Test(request, &done, MPI_STATUS_IGNORE)));
        TRY(control_check(m->channel));
        if (done)
            return 0;
        TRY(check_patience(m, what, &waits));
    }
}

int comm_mpi_progress(comm *c)
{
    comm_mpi *m = (comm_mpi *)c;
    TRY(control_check(m->channel));
    return comm_mpi_advance_sums(m);
}

int comm_mpi_broadcast(comm *c, void *data, size_t bytes, int root)
{
    comm_mpi *m = (comm_mpi *)c;
    for (size_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t n = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        MPI_Request request;
        int code = MPI_Ibcast((char *)data + done, (int)n, MPI_BYTE, root, m->calls, &request);
        TRY(finish(m, "MPI_Ibcast", code, &request));
    }
    return 0;
}

int comm_mpi_barrier(comm *c)
{
    comm_mpi *m = (comm_mpi *)c;
    MPI_Request request;
    int code = MPI_Ibarrier(m->calls, &request);
    return finish(m, "MPI_Ibarrier", code, &request);
}

int comm_mpi_all_gather(comm *c, const void *data, size_t bytes, void *all)
{
    comm_mpi *m = (comm_mpi *)c;
    CHECK(bytes <= INT_MAX, ERROR_SHAPE, "all_gather of %zu bytes per rank: at most %d fit one call", bytes, INT_MAX);
    MPI_Request request;
    int code = MPI_Iallgather(data, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, m->calls, &request);
    return finish(m, "MPI_Iallgather", code, &request);
}

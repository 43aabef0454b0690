/* Owns the collectives over MPI, among them the started sums.
 * Invariant: MPI never blocks this process: only non-blocking calls are made, and every wait looks at the control
 * channel and at a clock. A sum adds the ranks' values in rank order, so its bits are the same on every rank and in
 * every run, whatever the MPI library. Threads: main thread only. */
#include "comm_mpi.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/sixteen_bit.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    GATHERED_SUM_BYTES = 32768, /* sums up to this size take one exchange of everything */
    PIECE_BYTES = 1 << 30,      /* MPI counts are ints */
    BLAME_MS = 1000             /* how long the control channel may take to explain an MPI error */
};

typedef enum { SUM_EXCHANGE, SUM_COLLECT, SUM_DONE } sum_stage;

/* A started all_reduce. Each rank owns one contiguous share of the elements: it receives everyone's values of it, adds
 * them, and hands the result out. */
struct started_sum {
    started_sum *next;
    sum_stage stage;
    bool gathered; /* a small sum: every rank receives everything and adds it all */
    char *data;
    size_t count;
    comm_dtype type;
    MPI_Request request;
    char *parts; /* received: `size` blocks of equal length */
    size_t parts_bytes;
    int share[]; /* 4 * size: MPI's counts and displacements for both exchanges */
};

/* An MPI error while the program runs is most often a peer's death, which the control channel can put a name to. */
static int mpi_status(const comm_mpi *m, const char *what, int mpi_code)
{
    if (mpi_code == MPI_SUCCESS)
        return 0;
    TRY(control_await_failure(m->channel, BLAME_MS));
    return comm_mpi_status(what, mpi_code);
}

/* MPI only carries the elements; what they are matters to add_parts alone. */
static MPI_Datatype mpi_type(comm_dtype type)
{
    size_t bytes = comm_dtype_bytes(type);
    return bytes == 2 ? MPI_UINT16_T : bytes == 4 ? MPI_UINT32_T : MPI_UINT64_T;
}

static void add_f32(float *restrict sum, const float *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

static void add_f64(double *restrict sum, const double *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

/* Unsigned, so that an overflow wraps. */
static void add_i64(uint64_t *restrict sum, const uint64_t *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

static float value_of_16(uint16_t bits, comm_dtype type)
{
    return type == COMM_F16 ? float16_value(bits) : bfloat16_value(bits);
}

/* sum[i] = the sum of values[rank][i] over the ranks. */
static void add_16(uint16_t *restrict sum, const uint16_t *restrict values, int ranks, size_t n, comm_dtype type)
{
    for (size_t i = 0; i < n; i++) {
        float total = value_of_16(values[i], type);
        for (int rank = 1; rank < ranks; rank++)
            total += value_of_16(values[(size_t)rank * n + i], type);
        sum[i] = type == COMM_F16 ? float16_from(total) : bfloat16_from(total);
    }
}

static void add_parts(const comm_mpi *m, const started_sum *s, void *sum, size_t n)
{
    size_t bytes = n * comm_dtype_bytes(s->type);
    if (bytes == 0)
        return;
    if (comm_dtype_bytes(s->type) == 2) {
        add_16(sum, (const uint16_t *)(const void *)s->parts, m->base.info.size, n, s->type);
        return;
    }
    memcpy(sum, s->parts, bytes);
    for (int r = 1; r < m->base.info.size; r++) {
        const void *part = s->parts + (size_t)r * bytes;
        if (s->type == COMM_F32)
            add_f32(sum, part, n);
        else if (s->type == COMM_F64)
            add_f64(sum, part, n);
        else
            add_i64(sum, part, n);
    }
}

/* Elements before rank r's share: count/size each, the first count%size ranks one more. */
static size_t share_start(size_t count, int size, int r)
{
    size_t extra = count % (size_t)size, rank = (size_t)r;
    return count / (size_t)size * rank + (rank < extra ? rank : extra);
}

static int start_exchange(comm_mpi *m, started_sum *s)
{
    int size = m->base.info.size, rank = m->base.info.rank, n = (int)s->count;
    if (s->gathered)
        return mpi_status(
            m, "MPI_Iallgather",
            MPI_Iallgather(s->data, n, mpi_type(s->type), s->parts, n, mpi_type(s->type), m->calls, &s->request));
    int *counts = s->share, *starts = counts + size, *mine = starts + size, *places = mine + size;
    for (int r = 0; r < size; r++) {
        starts[r] = (int)share_start(s->count, size, r);
        counts[r] = (int)share_start(s->count, size, r + 1) - starts[r];
    }
    for (int r = 0; r < size; r++) {
        mine[r] = counts[rank];
        places[r] = r * counts[rank];
    }
    return mpi_status(m, "MPI_Ialltoallv",
                      MPI_Ialltoallv(s->data, counts, starts, mpi_type(s->type), s->parts, mine, places,
                                     mpi_type(s->type), m->calls, &s->request));
}

/* What follows when the exchange under way is complete. */
static int next_stage(comm_mpi *m, started_sum *s)
{
    int size = m->base.info.size, rank = m->base.info.rank;
    const int *counts = s->share, *starts = counts + size;
    if (s->stage == SUM_COLLECT || s->gathered) {
        if (s->gathered)
            add_parts(m, s, s->data, s->count);
        s->stage = SUM_DONE;
        return 0;
    }
    add_parts(m, s, s->data + (size_t)starts[rank] * comm_dtype_bytes(s->type), (size_t)counts[rank]);
    s->stage = SUM_COLLECT;
    return mpi_status(m, "MPI_Iallgatherv",
                      MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s->data, counts, starts, mpi_type(s->type),
                                      m->second, &s->request));
}

static int advance_sum(comm_mpi *m, started_sum *s)
{
    while (s->stage != SUM_DONE) {
        int done = 0;
        TRY(mpi_status(m, "MPI_Test", MPI_Test(&s->request, &done, MPI_STATUS_IGNORE)));
        if (!done)
            return 0;
        TRY(next_stage(m, s));
    }
    return 0;
}

/* Moves the started sums on as far as they go. A large one that is in its first exchange holds back the later large
 * ones, which keeps their second exchanges in order, but no small one. */
static int advance_sums(comm_mpi *m)
{
    bool holds = false;
    for (started_sum *s = m->first_sum; s; s = s->next) {
        if (s->gathered || !holds)
            TRY(advance_sum(m, s));
        holds = holds || (!s->gathered && s->stage == SUM_EXCHANGE);
    }
    return 0;
}

/* A record with room for `bytes` of parts; records are kept for the next sums. */
static started_sum *take_record(comm_mpi *m, size_t bytes)
{
    started_sum *s = m->idle_sums;
    if (s)
        m->idle_sums = s->next;
    else
        s = calloc(1, sizeof *s + 4 * (size_t)m->base.info.size * sizeof s->share[0]);
    if (!s || s->parts_bytes >= bytes)
        return s;
    free(s->parts);
    s->parts_bytes = bytes;
    s->parts = malloc(bytes);
    if (!s->parts) {
        free(s);
        return NULL;
    }
    return s;
}

int comm_mpi_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request)
{
    comm_mpi *m = (comm_mpi *)c;
    size_t size = (size_t)c->info.size, bytes = count * comm_dtype_bytes(type);
    CHECK(count <= INT_MAX - size, ERROR_SHAPE, "all_reduce of %zu elements: at most %zu fit one call", count,
          INT_MAX - size);
    bool gathered = bytes <= GATHERED_SUM_BYTES;
    size_t share = (count + size - 1) / size * comm_dtype_bytes(type);
    started_sum *s = take_record(m, 1 + size * (gathered ? bytes : share));
    CHECK(s, ERROR_MEMORY, "out of memory for an all_reduce of %zu bytes", bytes);
    s->next = NULL;
    s->stage = SUM_EXCHANGE;
    s->gathered = gathered;
    s->data = data;
    s->count = count;
    s->type = type;
    started_sum **end = &m->first_sum;
    while (*end)
        end = &(*end)->next;
    *end = s;
    request->handle[0] = (uintptr_t)s;
    return start_exchange(m, s);
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
    started_sum *s = (started_sum *)request->handle[0];
    patience waits = patience_begin();
    for (int polls = 0;; clock_pause(&polls)) {
        TRY(advance_sums(m));
        TRY(control_check(m->channel)); /* first: MPI may complete a call on what a dead peer left */
        if (s->stage == SUM_DONE)
            break;
        TRY(check_patience(m, "an all-reduce", &waits));
    }
    started_sum **link = &m->first_sum;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->next = m->idle_sums;
    m->idle_sums = s;
    request->handle[0] = 0;
    return 0;
}

/* Waits for a call that has returned `mpi_code` and, on success, `request`. */
static int finish(comm_mpi *m, const char *what, int mpi_code, MPI_Request *request)
{
    TRY(mpi_status(m, what, mpi_code));
    patience waits = patience_begin();
    for (int polls = 0;; clock_pause(&polls)) {
        int done = 0;
        TRY(advance_sums(m));
        TRY(mpi_status(m, what, MPI_Test(request, &done, MPI_STATUS_IGNORE)));
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
    return advance_sums(m);
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

void comm_mpi_free_sums(comm_mpi *m)
{
    while (m->idle_sums) {
        started_sum *s = m->idle_sums;
        m->idle_sums = s->next;
        free(s->parts);
        free(s);
    }
}

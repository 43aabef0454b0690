/* Owns the sums that are under way over MPI.
 *
 * A large sum takes two exchanges among the ranks of a host, and two more between them among the owners of one slice,
 * where there are several hosts (host_groups.h). A small one takes one exchange of everything among all ranks.
 * Invariant: values are added in the order of the ranks on each host, then in that of the hosts, whatever the way. So
 * the bits are the same on every rank and in every run, whatever the MPI library. Threads: main thread only. */
#include "comm_mpi.h"

#include "add.h"
#include "base/error.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { GATHERED_SUM_BYTES = 32768 /* sums up to this size take one exchange of everything */ };

/* In the order in which a large sum comes to them. */
typedef enum {
    SUM_EVERYTHING,    /* a small sum: everybody's values are on their way to everybody */
    SUM_SCATTER,       /* the host's values of this rank's slice are */
    SUM_SCATTER_HOSTS, /* the hosts' sums of this rank's part of the slice */
    SUM_GATHER_HOSTS,  /* the whole slice */
    SUM_GATHER,        /* the other slices */
    SUM_DONE
} sum_stage;

/* A started all_reduce. */
struct started_sum {
    started_sum *next;
    sum_stage stage;
    bool small; /* stays so when it is done */
    char *data;
    size_t count;
    comm_dtype type;
    MPI_Request request;
    char *parts; /* received, one block after another */
    size_t parts_bytes;
    int share[]; /* 4 * ranks: MPI's counts and displacements for an exchange */
};

/* Some elements of a sum. */
typedef struct {
    size_t start, count;
} slice;

static slice slice_of(slice whole, int slices, int number)
{
    size_t start = slice_start(whole.count, slices, number);
    return (slice){whole.start + start, slice_start(whole.count, slices, number + 1) - start};
}

static slice everything(const started_sum *s)
{
    return (slice){0, s->count};
}

/* What this rank owns on its host. */
static slice own_slice(const comm_mpi *m, const started_sum *s)
{
    return slice_of(everything(s), m->inside.size, m->inside.rank);
}

/* MPI only carries the elements; what they are matters to add.h alone. */
static MPI_Datatype mpi_type(comm_dtype type)
{
    size_t bytes = comm_dtype_bytes(type);
    return bytes == 2 ? MPI_UINT16_T : bytes == 4 ? MPI_UINT32_T : MPI_UINT64_T;
}

static char *element(const started_sum *s, size_t index)
{
    return s->data + index * comm_dtype_bytes(s->type);
}

/* ---- a small sum ---- */

static int start_everything(comm_mpi *m, started_sum *s)
{
    int n = (int)s->count;
    return comm_mpi_explain(
        m, "MPI_Iallgather",
        MPI_Iallgather(s->data, n, mpi_type(s->type), s->parts, n, mpi_type(s->type), m->calls, &s->request));
}

/* The blocks of the hosts' sums come after those of the ranks. */
static char *block(const started_sum *s, int number)
{
    return s->parts + (size_t)number * s->count * comm_dtype_bytes(s->type);
}

static void add_everything(const comm_mpi *m, started_sum *s)
{
    const host_groups *g = &m->groups;
    for (int host = 0; host < g->hosts; host++) {
        for (int place = 0; place < g->per_host; place++)
            m->part[place] = block(s, g->rank[host * g->per_host + place]);
        add_in_order(block(s, m->base.info.size + host), m->part, g->per_host, s->count, s->type);
    }
    for (int host = 0; host < g->hosts; host++)
        m->part[host] = block(s, m->base.info.size + host);
    add_in_order(s->data, m->part, g->hosts, s->count, s->type);
}

/* ---- a large sum ---- */

/* Each rank of the group gets the others' values of its part of `whole`. */
static int start_scatter(comm_mpi *m, started_sum *s, const sum_group *g, slice whole)
{
    int *counts = s->share, *starts = counts + g->size, *mine = starts + g->size, *places = mine + g->size;
    const int own = (int)slice_of(whole, g->size, g->rank).count;
    for (int r = 0; r < g->size; r++) {
        const slice theirs = slice_of(whole, g->size, r);
        const bool self = r == g->rank; /* its own values are there */
        starts[r] = (int)theirs.start;
        counts[r] = self ? 0 : (int)theirs.count;
        mine[r] = self ? 0 : own;
        places[r] = r * own;
    }
    return comm_mpi_explain(m, "MPI_Ialltoallv",
                            MPI_Ialltoallv(s->data, counts, starts, mpi_type(s->type), s->parts, mine, places,
                                           mpi_type(s->type), g->scatter, &s->request));
}

/* The sum is made in the first part's memory: the rank's own values may be needed later in it. */
static void add_scattered(const comm_mpi *m, started_sum *s, const sum_group *g, slice whole)
{
    const slice own = slice_of(whole, g->size, g->rank);
    const size_t bytes = own.count * comm_dtype_bytes(s->type);
    char *to = element(s, own.start), *first = g->rank == 0 ? to : s->parts;
    if (bytes == 0)
        return;
    for (int r = 0; r < g->size; r++)
        m->part[r] = r == g->rank ? to : s->parts + (size_t)r * bytes;
    add_in_order(first, m->part, g->size, own.count, s->type);
    if (first != to)
        memcpy(to, first, bytes);
}

/* Each rank of the group hands out its part of `whole`. */
static int start_gather(comm_mpi *m, started_sum *s, const sum_group *g, slice whole)
{
    int *counts = s->share, *starts = counts + g->size;
    for (int r = 0; r < g->size; r++) {
        const slice theirs = slice_of(whole, g->size, r);
        starts[r] = (int)theirs.start;
        counts[r] = (int)theirs.count;
    }
    return comm_mpi_explain(m, "MPI_Iallgatherv",
                            MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s->data, counts, starts,
                                            mpi_type(s->type), g->gather, &s->request));
}

/* ---- from stage to stage ---- */

static sum_stage stage_after(const comm_mpi *m, const started_sum *s)
{
    if (s->stage == SUM_EVERYTHING)
        return SUM_DONE;
    if (s->stage == SUM_SCATTER && m->groups.hosts == 1)
        return SUM_GATHER;
    return s->stage + 1;
}

/* What follows when the exchange under way is complete. */
static int enter(comm_mpi *m, started_sum *s, sum_stage next)
{
    if (s->stage == SUM_EVERYTHING)
        add_everything(m, s);
    else if (s->stage == SUM_SCATTER)
        add_scattered(m, s, &m->inside, everything(s));
    else if (s->stage == SUM_SCATTER_HOSTS)
        add_scattered(m, s, &m->across, own_slice(m, s));
    s->stage = next;
    if (next == SUM_SCATTER_HOSTS)
        return start_scatter(m, s, &m->across, own_slice(m, s));
    if (next == SUM_GATHER_HOSTS)
        return start_gather(m, s, &m->across, own_slice(m, s));
    return next == SUM_GATHER ? start_gather(m, s, &m->inside, everything(s)) : 0;
}

/* Up to the stage `last`. */
static int advance_sum(comm_mpi *m, started_sum *s, sum_stage last)
{
    while (s->stage != SUM_DONE && stage_after(m, s) <= last) {
        int done = 0;
        TRY(comm_mpi_explain(m, "MPI_Test", MPI_Test(&s->request, &done, MPI_STATUS_IGNORE)));
        if (!done)
            return 0;
        TRY(enter(m, s, stage_after(m, s)));
    }
    return 0;
}

/* No large sum overtakes an earlier one: the exchanges of a stage then start in the order of the sums on all ranks. */
int comm_mpi_advance_sums(comm_mpi *m)
{
    sum_stage reached = SUM_DONE;
    for (started_sum *s = m->first_sum; s; s = s->next) {
        const bool large = !s->small;
        TRY(advance_sum(m, s, large ? reached : SUM_DONE));
        if (large)
            reached = s->stage;
    }
    return 0;
}

/* ---- records ---- */

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

static void append(comm_mpi *m, started_sum *s)
{
    started_sum **end = &m->first_sum;
    while (*end)
        end = &(*end)->next;
    *end = s;
}

/* What the largest exchange of a large sum receives, in elements. */
static size_t received(const comm_mpi *m, size_t count)
{
    const size_t inside = (size_t)m->inside.size, across = (size_t)m->across.size;
    const size_t own = (count + inside - 1) / inside, part = (own + across - 1) / across;
    return inside * own > across * part ? inside * own : across * part;
}

int comm_mpi_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request)
{
    comm_mpi *m = (comm_mpi *)c;
    const size_t size = (size_t)c->info.size, element_bytes = comm_dtype_bytes(type);
    CHECK(count <= INT_MAX - size, ERROR_SHAPE, "all_reduce of %zu elements: at most %zu fit one call", count,
          INT_MAX - size);
    const bool small = count * element_bytes <= GATHERED_SUM_BYTES;
    const size_t elements = small ? (size + (size_t)m->groups.hosts) * count : received(m, count);
    started_sum *s = take_record(m, 1 + elements * element_bytes);
    CHECK(s, ERROR_MEMORY, "out of memory for an all_reduce of %zu bytes", count * element_bytes);
    s->next = NULL;
    s->small = small;
    s->stage = small ? SUM_EVERYTHING : SUM_SCATTER;
    s->data = data;
    s->count = count;
    s->type = type;
    append(m, s);
    request->handle[0] = (uintptr_t)s;
    return small ? start_everything(m, s) : start_scatter(m, s, &m->inside, everything(s));
}

bool comm_mpi_take_sum(comm_mpi *m, comm_request *request)
{
    started_sum *s = (started_sum *)request->handle[0], **link = &m->first_sum;
    if (s->stage != SUM_DONE)
        return false;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->next = m->idle_sums;
    m->idle_sums = s;
    request->handle[0] = 0;
    return true;
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

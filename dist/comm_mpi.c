/* Opens and closes MPI and the control channel beside it, and splits the ranks.
 * Invariant: a communicator that was handed out has a running control channel. Only opening, splitting and MPI_Finalize
 * use MPI calls that block, each under a time limit. Threads: main thread only; MPI is told so. */
#include "comm_mpi.h"

#include "base/error.h"
#include "time_limit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int comm_mpi_status(const char *what, int mpi_code)
{
    if (mpi_code == MPI_SUCCESS)
        return 0;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(mpi_code, text, &length);
    return error_set(ERROR_COMM, "%s failed: %s", what, text);
}

static bool mpi_peer_failed(const comm *c)
{
    return control_peer_failed(((const comm_mpi *)c)->channel);
}

static void mpi_abort(comm *c, int code, const char *text)
{
    control_leave(((comm_mpi *)c)->channel, code, text);
}

static int mpi_peer_code(const comm *c)
{
    return control_peer_code(((const comm_mpi *)c)->channel);
}

static void mpi_await_abort(comm *c)
{
    enum { ABORT_MS = 10000 }; /* it may be slow, and a launcher would take its message away with it */
    control_await_failure(((comm_mpi *)c)->channel, ABORT_MS);
}

static void mpi_stand(comm *c)
{
    control_stand(((comm_mpi *)c)->channel, &c->standing);
}

static void mpi_watch(comm *c, const phase_limits *limits, double silence_seconds)
{
    control_watch(((comm_mpi *)c)->channel, limits, silence_seconds);
}

static void free_all(comm_mpi *m)
{
    control_close(m->channel);
    comm_mpi_free_sums(m);
    host_groups_free(&m->groups);
    free(m->part);
    free(m->place);
    free(m);
}

static void end_mpi(comm_mpi *m)
{
    time_limit *limit = time_limit_start(m->base.limits.patience_seconds, m->base.limits.end_process, "the end of MPI");
    comm_mpi_ungroup(m);
    MPI_Comm_free(&m->calls);
    MPI_Finalize();
    time_limit_stop(limit);
}

static void close_part(comm_mpi *part)
{
    comm_mpi_ungroup(part);
    MPI_Comm_free(&part->calls);
    comm_mpi_free_sums(part);
    free(part->place);
    free(part);
}

/* The place of each rank of the part, whose numbers are others than in the whole. */
static int gather_places(const comm_mpi *m, comm_mpi *part)
{
    const rank_place mine = m->place[m->base.info.rank];
    const int size = part->base.info.size;
    part->place = calloc((size_t)size, sizeof *part->place);
    CHECK(part->place, ERROR_MEMORY, "out of memory for a table of %d ranks", size);
    TRY(comm_mpi_status("MPI_Allgather",
                        MPI_Allgather(&mine, sizeof mine, MPI_BYTE, part->place, sizeof mine, MPI_BYTE, part->calls)));
    int *leaders = malloc((size_t)size * sizeof *leaders);
    CHECK(leaders, ERROR_MEMORY, "out of memory for a table of %d ranks", size);
    for (int r = 0; r < size; r++)
        leaders[r] = part->place[r].host_leader;
    for (int r = 0; r < size; r++) {
        int first = 0;
        while (leaders[first] != leaders[r])
            first++;
        part->place[r].host_leader = first;
    }
    free(leaders);
    return 0;
}

static int split_calls(comm_mpi *m, int group, comm_mpi *part)
{
    comm_info *info = &part->base.info;
    TRY(comm_mpi_status("MPI_Comm_split",
                        MPI_Comm_split(m->calls, group < 0 ? MPI_UNDEFINED : group, info->rank, &part->calls)));
    if (group < 0)
        return 0;
    TRY(comm_mpi_status("MPI_Comm_rank", MPI_Comm_rank(part->calls, &info->rank)));
    TRY(comm_mpi_status("MPI_Comm_size", MPI_Comm_size(part->calls, &info->size)));
    TRY(gather_places(m, part));
    return comm_mpi_group(part);
}

/* MPI's call blocks: all ranks meet before it, where a missing one is noticed. */
static int mpi_split(comm *c, int group, comm **out)
{
    comm_mpi *m = (comm_mpi *)c;
    TRY(comm_mpi_barrier(c));
    comm_mpi *part = calloc(1, sizeof *part);
    CHECK(part, ERROR_MEMORY, "out of memory for a communicator");
    part->base = m->base;
    part->base.agreed_rank = -1;
    part->base.standing.entered = PHASE_NONE; /* a part tells nobody of its waits */
    part->channel = m->channel;
    part->is_part = true;
    time_limit *limit = time_limit_start(c->limits.patience_seconds, c->limits.end_process, "splitting the ranks");
    const int status = split_calls(m, group, part);
    time_limit_stop(limit);
    if (status == 0 && group >= 0) {
        *out = &part->base;
        return 0;
    }
    free(part->place); /* after a failure MPI is left as it is */
    free(part);
    return status;
}

/* With a peer gone MPI_Finalize might wait for it for ever: MPI is then left as it is. */
static void mpi_close(comm *c)
{
    comm_mpi *m = (comm_mpi *)c;
    if (m->is_part) {
        close_part(m);
        return;
    }
    if (comm_mpi_barrier(c) == 0) {
        control_leave(m->channel, 0, "");
        end_mpi(m);
    }
    free_all(m);
}

static const comm_ops mpi_ops = {
    .all_reduce_start = comm_mpi_all_reduce_start,
    .wait = comm_mpi_wait,
    .progress = comm_mpi_progress,
    .broadcast = comm_mpi_broadcast,
    .barrier = comm_mpi_barrier,
    .all_gather = comm_mpi_all_gather,
    .split = mpi_split,
    .peer_failed = mpi_peer_failed,
    .peer_code = mpi_peer_code,
    .abort = mpi_abort,
    .await_abort = mpi_await_abort,
    .stand = mpi_stand,
    .watch = mpi_watch,
    .close = mpi_close,
};

static int start_mpi(void)
{
    int started = 0, provided = MPI_THREAD_SINGLE;
    TRY(comm_mpi_status("MPI_Initialized", MPI_Initialized(&started)));
    CHECK(!started, ERROR_INTERNAL, "MPI can be opened only once in a process");
    TRY(comm_mpi_status("MPI_Init_thread", MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided)));
    CHECK(provided >= MPI_THREAD_FUNNELED, ERROR_COMM, "this MPI library does not work in a program with threads");
    return comm_mpi_status("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
}

/* Ranks, hosts, and who shares one. */
static int describe_ranks(comm_mpi *m)
{
    comm_info *info = &m->base.info;
    MPI_Comm local;
    rank_place mine = {0};
    int length = 0;
    TRY(comm_mpi_status("MPI_Comm_rank", MPI_Comm_rank(MPI_COMM_WORLD, &info->rank)));
    TRY(comm_mpi_status("MPI_Comm_size", MPI_Comm_size(MPI_COMM_WORLD, &info->size)));
    TRY(comm_mpi_status("MPI_Comm_split_type",
                        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, info->rank, MPI_INFO_NULL, &local)));
    TRY(comm_mpi_status("MPI_Comm_rank", MPI_Comm_rank(local, &info->local_rank)));
    TRY(comm_mpi_status("MPI_Comm_size", MPI_Comm_size(local, &info->local_size)));
    mine.host_leader = info->rank;
    TRY(comm_mpi_status("MPI_Bcast", MPI_Bcast(&mine.host_leader, 1, MPI_INT, 0, local)));
    TRY(comm_mpi_status("MPI_Comm_free", MPI_Comm_free(&local)));

    comm_name_host(m->base.host);
    memcpy(mine.host, m->base.host, sizeof mine.host);
    m->place = calloc((size_t)info->size, sizeof *m->place);
    CHECK(m->place, ERROR_MEMORY, "out of memory for a table of %d ranks", info->size);
    TRY(comm_mpi_status("MPI_Allgather",
                        MPI_Allgather(&mine, sizeof mine, MPI_BYTE, m->place, sizeof mine, MPI_BYTE, MPI_COMM_WORLD)));
    TRY(comm_mpi_status("MPI_Get_library_version", MPI_Get_library_version(m->library, &length)));
    m->library[strcspn(m->library, "\n")] = '\0';
    info->host_leader = mine.host_leader;
    info->host = m->base.host;
    info->library = m->library;
    return 0;
}

static int open_group(MPI_Comm ranks, sum_group *g, int color, int place)
{
    TRY(comm_mpi_status("MPI_Comm_split", MPI_Comm_split(ranks, color, place, &g->scatter)));
    TRY(comm_mpi_status("MPI_Comm_dup", MPI_Comm_dup(g->scatter, &g->gather)));
    TRY(comm_mpi_status("MPI_Comm_rank", MPI_Comm_rank(g->scatter, &g->rank)));
    return comm_mpi_status("MPI_Comm_size", MPI_Comm_size(g->scatter, &g->size));
}

static int make_groups(comm_mpi *m)
{
    const int size = m->base.info.size;
    int *leader = malloc((size_t)size * sizeof *leader);
    CHECK(leader, ERROR_MEMORY, "out of memory for a table of %d ranks", size);
    for (int r = 0; r < size; r++)
        leader[r] = m->place[r].host_leader;
    int status = host_groups_make(&m->groups, leader, size, m->base.info.rank);
    free(leader);
    return status;
}

int comm_mpi_group(comm_mpi *m)
{
    const host_groups *g = &m->groups;
    TRY(make_groups(m));
    m->part = malloc((size_t)m->base.info.size * sizeof *m->part);
    CHECK(m->part, ERROR_MEMORY, "out of memory for a table of %d ranks", m->base.info.size);
    m->across = (sum_group){.scatter = MPI_COMM_NULL, .gather = MPI_COMM_NULL, .size = 1};
    TRY(open_group(m->calls, &m->inside, g->host, g->place));
    return g->hosts > 1 ? open_group(m->calls, &m->across, g->place, g->host) : 0;
}

static void close_group(sum_group *g)
{
    if (g->scatter != MPI_COMM_NULL)
        MPI_Comm_free(&g->scatter);
    if (g->gather != MPI_COMM_NULL)
        MPI_Comm_free(&g->gather);
}

void comm_mpi_ungroup(comm_mpi *m)
{
    close_group(&m->inside);
    close_group(&m->across);
    host_groups_free(&m->groups);
    free(m->part);
    m->part = NULL;
}

static int accept_ranks(comm_mpi *m, int listener, const rendezvous_invite *invite, int *fd)
{
    int status = rendezvous_accept(listener, invite, m->place, m->base.info.size, fd);
    m->blames_other = status < 0;
    return status;
}

static int connect_to_first(comm_mpi *m, const rendezvous_invite *invite, int *fd)
{
    int rank = m->base.info.rank;
    m->blames_other = invite->port == 0;
    CHECK(invite->port != 0, ERROR_COMM, "rank 0 could not open the control channel");
    fd[0] = rendezvous_connect(invite, rank, m->place[rank].host_leader == m->place[0].host_leader);
    return fd[0] < 0 ? fd[0] : 0;
}

/* Rank 0 opens a port, tells everyone by MPI, and lets them in; `fd` has an entry for each rank. */
static int connect_ranks(comm_mpi *m, int *fd)
{
    bool first = m->base.info.rank == 0;
    rendezvous_invite invite = {0};
    int listener = first ? rendezvous_listen(&invite) : -1;
    int status = comm_mpi_status("MPI_Bcast", MPI_Bcast(&invite, sizeof invite, MPI_BYTE, 0, MPI_COMM_WORLD));
    if (status == 0 && first)
        status = listener < 0 ? listener : accept_ranks(m, listener, &invite, fd);
    else if (status == 0)
        status = connect_to_first(m, &invite, fd);
    if (listener >= 0)
        close(listener);
    return status;
}

static int open_channel(comm_mpi *m)
{
    int rank = m->base.info.rank, size = m->base.info.size;
    int *fd = malloc((size_t)size * sizeof *fd);
    CHECK(fd, ERROR_MEMORY, "out of memory for %d connections", size);
    for (int r = 0; r < size; r++)
        fd[r] = -1;
    int status = connect_ranks(m, fd);
    if (status == 0)
        status = control_open(&m->channel, rank, size, m->place, fd, &m->base.limits);
    else
        for (int r = 0; r < size; r++)
            if (fd[r] >= 0)
                close(fd[r]);
    free(fd);
    return status;
}

/* Who speaks is settled: the lowest failing rank that blames no other, or else the lowest. It returns its message, the
 * others an empty one. */
static int agree_on_opening(const comm_mpi *m, int status)
{
    int size = m->base.info.size, mine = m->base.info.rank + (m->blames_other ? size : 0), first;
    if (status == 0)
        mine = 2 * size;
    TRY(comm_mpi_status("MPI_Allreduce", MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD)));
    if (first == 2 * size)
        return 0;
    if (mine == first)
        return error_prefix(ERROR_COMM, "rank %d on %s", m->base.info.rank, m->base.host);
    error_clear();
    return ERROR_COMM;
}

static int open_parts(comm_mpi *m)
{
    TRY(start_mpi());
    TRY(describe_ranks(m));
    TRY(comm_mpi_status("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &m->calls)));
    TRY(comm_mpi_group(m));
    return agree_on_opening(m, open_channel(m));
}

/* A failure leaves MPI as it is: finalizing waits for ranks that may not come. */
int comm_open_mpi(comm **out, const comm_limits *limits)
{
    comm_mpi *m = calloc(1, sizeof *m);
    CHECK(m, ERROR_MEMORY, "out of memory for a communicator");
    m->base.ops = &mpi_ops;
    m->base.agreed_rank = -1;
    m->base.limits = *limits;
    time_limit *limit = time_limit_start(limits->patience_seconds, limits->end_process, "opening MPI");
    int status = open_parts(m);
    time_limit_stop(limit);
    if (status < 0) {
        free_all(m);
        return status;
    }
    *out = &m->base;
    return 0;
}

/* Chooses the kind of communicator, checks arguments, and builds the agreement on top of either kind.
 * Holds no state of its own. Threads: main thread only. */
#include "comm_internal.h"

#include "base/clock.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void comm_name_host(char host[HOST_BYTES])
{
    if (gethostname(host, HOST_BYTES) != 0 || host[0] == '\0')
        snprintf(host, HOST_BYTES, "unknown host");
    host[HOST_BYTES - 1] = '\0';
}

/* mpirun of Open MPI sets the first, srun --mpi=pmix the second, other process managers the rest. */
static bool launcher_started_us(void)
{
    static const char *const mark[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof mark / sizeof *mark; i++)
        if (getenv(mark[i]))
            return true;
    return false;
}

static long number_in(const char *variable, long otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

int comm_expected_rank(void)
{
    static const char *const rank[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof rank / sizeof *rank; i++)
        if (getenv(rank[i]))
            return (int)number_in(rank[i], 0);
    return 0;
}

/* What says how many processes were started together. SLURM_NTASKS does not: a batch script, which no step started, has
 * it too. */
int comm_refuse_single(const comm *c)
{
    const char *library = c->info.library;
    const struct {
        const char *variable, *launcher, *advice, *library;
    } marks[] = {
        {"OMPI_COMM_WORLD_SIZE", "mpirun",
         "take the mpirun of the MPI library that this program is built with: ", library},
        {"PMI_SIZE", "the launcher",
         "take `srun --mpi=pmix`, or the mpirun of the MPI library that this program is built with: ", library},
        {"SLURM_STEP_NUM_TASKS", "srun",
         "launch with `srun --mpi=pmix`, or where `srun --mpi=list` does not name it with `mpirun` in the batch script",
         ""}};
    for (size_t i = 0; c->info.size == 1 && i < sizeof marks / sizeof *marks; i++) {
        long started = number_in(marks[i].variable, 1);
        CHECK(started <= 1, ERROR_USAGE,
              "%s started %ld processes (%s), but this one finds itself the only rank, and each would do the whole "
              "work: %s%s (on purpose alone: unset %s)",
              marks[i].launcher, started, marks[i].variable, marks[i].advice, marks[i].library, marks[i].variable);
    }
    return 0;
}

int comm_open(comm **out, const comm_limits *limits)
{
    static const comm_limits usual = {.patience_seconds = COMM_PATIENCE_SECONDS,
                                      .grace_seconds = COMM_GRACE_SECONDS,
                                      .silence_seconds = COMM_SILENCE_SECONDS};
    *out = NULL;
    return launcher_started_us() ? comm_open_mpi(out, limits ? limits : &usual) : comm_open_self(out);
}

const comm_info *comm_describe(const comm *c)
{
    return &c->info;
}

double comm_patience(const comm *c)
{
    enum { STEPS = 30, STEP_SECONDS = 1 };
    int rank = c->info.rank;
    return c->limits.patience_seconds + STEP_SECONDS * (rank < STEPS ? rank : STEPS);
}

int comm_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request)
{
    CHECK(request->handle[0] == 0, ERROR_INTERNAL, "all_reduce started on a request that is still under way");
    return c->ops->all_reduce_start(c, data, count, type, request);
}

int comm_wait(comm *c, comm_request *request)
{
    CHECK(request->handle[0] != 0, ERROR_INTERNAL, "waiting for an all_reduce that was not started");
    comm_begin_wait(c);
    const int status = c->ops->wait(c, request);
    comm_end_wait(c);
    return status;
}

int comm_all_reduce(comm *c, void *data, size_t count, comm_dtype type)
{
    comm_request request = {0};
    TRY(comm_all_reduce_start(c, data, count, type, &request));
    return comm_wait(c, &request);
}

int comm_progress(comm *c)
{
    return c->ops->progress(c);
}

int comm_broadcast(comm *c, void *data, size_t bytes, int root)
{
    CHECK(root >= 0 && root < c->info.size, ERROR_INTERNAL, "broadcast from rank %d of %d", root, c->info.size);
    comm_begin_wait(c);
    const int status = c->ops->broadcast(c, data, bytes, root);
    comm_end_wait(c);
    return status;
}

int comm_barrier(comm *c)
{
    comm_begin_wait(c);
    const int status = c->ops->barrier(c);
    comm_end_wait(c);
    return status;
}

int comm_all_gather(comm *c, const void *data, size_t bytes, void *all)
{
    comm_begin_wait(c);
    const int status = c->ops->all_gather(c, data, bytes, all);
    comm_end_wait(c);
    return status;
}

int comm_split(comm *c, int group, comm **out)
{
    *out = NULL;
    return c->ops->split(c, group, out);
}

/* Whether this thread's message is the one the ranks last agreed on, perhaps prefixed since. Agreements nest: an inner
 * failure passes through an outer one with its cause and its text unchanged. */
static bool message_is_agreed(const comm *c)
{
    return c->agreed_rank >= 0 && strstr(error_message(), c->agreed_text);
}

void comm_sign_error(const comm *c, int code)
{
    char signature[HOST_BYTES + 32];
    snprintf(signature, sizeof signature, "rank %d on %s", c->info.rank, c->info.host);
    if (!error_message()[0])
        error_set(code, "%s", error_text(code));
    bool is_signed = strncmp(error_message(), signature, strlen(signature)) == 0;
    if (c->info.size > 1 && !is_signed && !message_is_agreed(c))
        error_prefix(code, "%s", signature);
}

typedef struct {
    int32_t status, cause; /* cause: the rank where it began */
} outcome;

int comm_agree(comm *c, int status)
{
    int size = c->info.size;
    if (size == 1)
        return status < 0 ? status : 0;
    outcome mine = {.status = status < 0 ? status : 0, .cause = message_is_agreed(c) ? c->agreed_rank : c->info.rank};
    char text[COMM_TEXT_BYTES] = "";
    if (status < 0) {
        comm_sign_error(c, status);
        strncpy(text, error_message(), sizeof text - 1);
    }

    outcome *all = malloc((size_t)size * sizeof *all);
    CHECK(all, ERROR_MEMORY, "out of memory for the outcomes of %d ranks", size);
    int result = comm_all_gather(c, &mine, sizeof mine, all), failing = 0;
    while (result == 0 && failing < size && all[failing].status == 0)
        failing++;
    if (result == 0 && failing < size && (result = comm_broadcast(c, text, sizeof text, failing)) == 0) {
        c->agreed_rank = all[failing].cause;
        memcpy(c->agreed_text, text, sizeof text);
        result = error_set(all[failing].status, "%s", text);
    }
    free(all);
    return result;
}

bool comm_peer_failed(const comm *c)
{
    /* Peers of an agreed failure's rank may have told it of the end already: it speaks all the same, and it alone. */
    return message_is_agreed(c) ? c->agreed_rank != c->info.rank : c->ops->peer_failed(c);
}

void comm_abort(comm *c, int code)
{
    char text[COMM_TEXT_BYTES];
    comm_sign_error(c, code);
    snprintf(text, sizeof text, "%s", error_message()); /* waiting may replace the message */
    /* After an agreed failure the rank where it began speaks for all. A launcher kills everyone as soon as one rank has
     * ended, so the others stay until it has spoken. */
    if (message_is_agreed(c) && c->agreed_rank != c->info.rank)
        c->ops->await_abort(c);
    c->ops->abort(c, code, text);
}

int comm_peer_code(const comm *c)
{
    return c->ops->peer_code(c);
}

bool comm_leave_early(comm *c, int code)
{
    enum { RANKS = 10, STEP_US = 20000 };
    int rank = c->info.rank;
    char text[COMM_TEXT_BYTES];
    clock_sleep_us((long)STEP_US * (rank < RANKS ? rank : RANKS));
    if (c->ops->peer_failed(c))
        return false;
    if (c->info.size > 1)
        error_prefix(code, "rank %d on %s", rank, c->info.host);
    snprintf(text, sizeof text, "%s", error_message());
    c->ops->abort(c, code, text);
    return true;
}

void comm_leave_thread(comm *c)
{
    c->has_left_thread = true;
}

bool comm_has_left_thread(const comm *c)
{
    return c->has_left_thread;
}

void comm_close(comm *c)
{
    if (c)
        c->ops->close(c);
}

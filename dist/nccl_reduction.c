/* Owns the communicator of NCCL, its stream, the two events that order it with the launches, and the memory that it
 * sums in without copies.
 *
 * The communicator is non-blocking: a call of NCCL may return before it is done, and is then asked for while the
 * control channel and a clock are looked at. The GPU is only ever queried. Invariant: after the first failure NCCL is
 * being aborted, and nothing more is started. Main thread; ending has one of its own (nccl_ending.h). */
#include "nccl_reduction.h"

#include "base/clock.h"
#include "base/error.h"
#include "kernels/cuda/library/libraries.h"
#include "nccl_ending.h"
#include "nccl_window.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    /* Blocks of a sum's kernel. Each takes a multiprocessor from the backward pass that goes on beside it; left alone,
     * NCCL takes twice as many and more where links are fast. NCCL_MAX_CTAS in the environment overrules it. */
    MAX_CTAS = 16,
    POLL_US = 1000 /* while opening, which takes long */
};

/* How long connecting may take, whatever the deadline; the control channel, to explain an error of NCCL or the GPU; an
 * orderly end; an abort. */
static const double CONNECT_SECONDS = 120.0, BLAME_SECONDS = 1.0, FINALIZE_SECONDS = 5.0, GRACE_SECONDS = 3.0;

typedef struct {
    reduction base;
    reduction_ops table; /* has the name */
    char name[48];
    const cuda_libraries *nccl;
    comm *ranks;
    double deadline; /* seconds */
    bool deterministic;
    cudaStream_t compute, sums;
    cudaEvent_t ready, summed; /* the launches so far are done; so are the sums so far */
    ncclComm_t communicator;
    nccl_window *window; /* NULL: sums are in plain memory only */
    bool unfinished;     /* a sum was started that launches do not wait for yet */
    int failed;          /* the first failure's code and message */
    error_copy failure;
    nccl_ending *ending;
} nccl_reduction;

/* An error of NCCL or of the GPU is often only the trace of a peer's death, to which the control channel can put a
 * name. Where all ranks meet it at once, the lowest one tells the others, which wait a little longer. */
static int attribute_failure(const nccl_reduction *self)
{
    enum { LATEST = 30 };
    int rank = comm_describe(self->ranks)->rank;
    double limit = clock_seconds() + BLAME_SECONDS * (1 + 0.25 * (rank < LATEST ? rank : LATEST));
    do {
        TRY(comm_progress(self->ranks));
        clock_sleep_us(POLL_US);
    } while (comm_describe(self->ranks)->size > 1 && clock_seconds() < limit);
    return 0;
}

static int check_cuda(const nccl_reduction *self, cudaError_t status, const char *what)
{
    if (status == cudaSuccess)
        return 0;
    TRY(attribute_failure(self));
    return error_set(ERROR_KERNEL, "%s: %s", what, cudaGetErrorString(status));
}

/* ncclInProgress is no error. */
static int check_nccl(const nccl_reduction *self, ncclResult_t result, const char *what)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return 0;
    TRY(attribute_failure(self));
    const char *detail = self->nccl->ncclGetLastError(self->communicator);
    bool more = detail && *detail;
    return error_set(ERROR_COMM, "%s: %s: %s%s%s (NCCL_DEBUG=INFO in the environment shows more)", what, self->name,
                     self->nccl->ncclGetErrorString(result), more ? ": " : "", more ? detail : "");
}

/* What the communicator is at, or the error it has met since. */
static ncclResult_t communicator_state(const nccl_reduction *self)
{
    ncclResult_t state = ncclSuccess, asked = self->nccl->ncclCommGetAsyncError(self->communicator, &state);
    return asked == ncclSuccess ? state : asked;
}

/* What came of a call that answered `result`. ncclSuccess does not say that it is done: ncclCommWindowRegister (2.28)
 * only queues its work. The communicator's own state counts. */
static ncclResult_t outcome(const nccl_reduction *self, ncclResult_t result)
{
    return result == ncclSuccess ? communicator_state(self) : result;
}

/* Waits for what a call answered `result` to. */
static int await_call(const nccl_reduction *self, ncclResult_t result, double seconds, const char *what)
{
    double limit = clock_seconds() + seconds;
    result = outcome(self, result);
    for (int polls = 0; result == ncclInProgress; clock_pause(&polls)) {
        TRY(comm_progress(self->ranks));
        CHECK(clock_seconds() < limit, ERROR_COMM,
              "%s: %s has taken %g s, while every rank is alive (NCCL_DEBUG=INFO in the environment shows where)", what,
              self->name, seconds);
        result = communicator_state(self);
    }
    return check_nccl(self, result, what);
}

/* ---- sums ---- */

/* Keeps the first failure and lets NCCL's kernels leave the GPU. */
static int fail(nccl_reduction *self, int code)
{
    self->failed = code;
    self->failure = error_save();
    if (self->communicator)
        self->ending = nccl_ending_start(self->nccl->ncclCommAbort, self->communicator);
    return code;
}

static int check_works(const nccl_reduction *self)
{
    if (self->failed < 0)
        error_restore(&self->failure);
    return self->failed;
}

static ncclDataType_t nccl_type(comm_dtype type)
{
    static const ncclDataType_t types[] = {[COMM_F32] = ncclFloat32,
                                           [COMM_F64] = ncclFloat64,
                                           [COMM_I64] = ncclInt64,
                                           [COMM_F16] = ncclFloat16,
                                           [COMM_BF16] = ncclBfloat16};
    return types[type];
}

/* The kernel is launched by a thread of NCCL, perhaps after the call: what comes after it on the stream must wait until
 * that is done. */
static int start_sum(nccl_reduction *self, void *data, size_t count, comm_dtype type)
{
    const char *what = "starting an all-reduce";
    TRY(check_cuda(self, cudaEventRecord(self->ready, self->compute), what));
    TRY(check_cuda(self, cudaStreamWaitEvent(self->sums, self->ready, 0), what));
    self->unfinished = true;
    return await_call(
        self, self->nccl->ncclAllReduce(data, data, count, nccl_type(type), ncclSum, self->communicator, self->sums),
        self->deadline, what);
}

static int start(reduction *base, void *data, size_t count, comm_dtype type)
{
    nccl_reduction *self = (nccl_reduction *)base;
    TRY(check_works(self));
    if (count == 0)
        return 0;
    int code = start_sum(self, data, count, type);
    return code < 0 ? fail(self, code) : 0;
}

/* With nothing started there is nothing to wait for; inside a capture a wait for what came before it would be
 * refused.
 */
static int finish(reduction *base)
{
    nccl_reduction *self = (nccl_reduction *)base;
    const char *what = "finishing an all-reduce";
    TRY(check_works(self));
    if (!self->unfinished)
        return 0;
    self->unfinished = false;
    int code = check_cuda(self, cudaEventRecord(self->summed, self->sums), what);
    if (code == 0)
        code = check_cuda(self, cudaStreamWaitEvent(self->compute, self->summed, 0), what);
    return code < 0 ? fail(self, code) : 0;
}

/* On the stream of the other reductions, so behind them: a second communicator would compete for the GPU. */
static int sum_now(reduction *base, void *data, size_t count, comm_dtype type)
{
    TRY(start(base, data, count, type));
    return finish(base);
}

static int poll_peers(const nccl_reduction *self)
{
    TRY(comm_progress(self->ranks));
    return check_nccl(self, communicator_state(self), "reductions");
}

static int progress(reduction *base)
{
    nccl_reduction *self = (nccl_reduction *)base;
    TRY(check_works(self));
    int code = poll_peers(self);
    return code < 0 ? fail(self, code) : 0;
}

/* "Not ready" would otherwise be kept as the last error, and be found by whoever asks next. */
static cudaError_t query(cudaStream_t stream, bool *idle)
{
    cudaError_t status = cudaStreamQuery(stream);
    *idle = status == cudaSuccess;
    if (status != cudaErrorNotReady)
        return status;
    cudaGetLastError();
    return cudaSuccess;
}

/* The deadline counts from the beginning of the wait: the host sees nothing of how far a GPU has come. */
static int await_streams(const nccl_reduction *self)
{
    const char *what = "waiting for the GPU";
    double limit = clock_seconds() + self->deadline;
    bool idle[2];
    for (int polls = 0;; clock_pause(&polls)) {
        TRY(check_cuda(self, query(self->compute, &idle[0]), what));
        TRY(check_cuda(self, query(self->sums, &idle[1]), what));
        TRY(poll_peers(self)); /* in any case: an aborted sum ends, too */
        if (idle[0] && idle[1])
            return 0;
        CHECK(clock_seconds() < limit, ERROR_COMM,
              "%s: its %s were not done within %g s, while every rank is alive; %s may have lost a connection without "
              "noticing (NCCL_DEBUG=INFO in the environment shows more)",
              what, idle[1] ? "launches" : "reductions", self->deadline, self->name);
    }
}

static int synchronize(reduction *base)
{
    nccl_reduction *self = (nccl_reduction *)base;
    TRY(check_works(self));
    int code = await_streams(self);
    return code < 0 ? fail(self, code) : 0;
}

/* ---- connecting ---- */

static int share_id(const nccl_reduction *self, ncclUniqueId *id)
{
    bool first = comm_describe(self->ranks)->rank == 0;
    int code = first ? check_nccl(self, self->nccl->ncclGetUniqueId(id), "preparing sums between GPUs") : 0;
    TRY(comm_agree(self->ranks, code));
    return comm_broadcast(self->ranks, id, sizeof *id, 0);
}

static double connect_seconds(const nccl_reduction *self)
{
    return self->deadline < CONNECT_SECONDS ? self->deadline : CONNECT_SECONDS;
}

static int say_not_connected(const nccl_reduction *self)
{
    return error_set(ERROR_COMM,
                     "%s has not connected the %d ranks within %g s. It needs TCP between all of them, on any port (a "
                     "firewall?), on the network interface that NCCL_SOCKET_IFNAME names; NCCL_DEBUG=INFO in the "
                     "environment shows how far it came",
                     self->name, comm_describe(self->ranks)->size, connect_seconds(self));
}

/* Waits for a call that takes all ranks. Each round of polling ends with a vote: when one rank gives up, all do, at
 * once. Returns how many gave up; `*code` is this rank's own outcome. */
static int await_ranks(const nccl_reduction *self, ncclResult_t answer, const char *what, int *code)
{
    enum { GAVE_UP, DONE, VOTES };
    const int size = comm_describe(self->ranks)->size;
    double limit = clock_seconds() + connect_seconds(self);
    ncclResult_t state = outcome(self, answer);
    for (;; clock_sleep_us(POLL_US)) {
        *code = check_nccl(self, state, what);
        if (state == ncclInProgress && clock_seconds() > limit)
            *code = say_not_connected(self);
        int64_t votes[VOTES] = {[GAVE_UP] = *code < 0, [DONE] = state == ncclSuccess};
        TRY(comm_all_reduce(self->ranks, votes, VOTES, COMM_I64));
        if (votes[GAVE_UP] > 0 || votes[DONE] == size)
            return (int)votes[GAVE_UP];
        state = communicator_state(self);
    }
}

static int start_connecting(nccl_reduction *self, const ncclUniqueId *id)
{
    const comm_info *info = comm_describe(self->ranks);
    const char *what = "connecting the GPUs";
    int code;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = MAX_CTAS;
    TRY(await_ranks(self, self->nccl->ncclCommInitRankConfig(&self->communicator, info->size, *id, info->rank, &config),
                    what, &code));
    return code;
}

static int connect_ranks(nccl_reduction *self)
{
    ncclUniqueId id = {0};
    TRY(share_id(self, &id));
    return comm_agree(self->ranks, start_connecting(self, &id));
}

/* ---- memory ---- */

/* A window serves the GPUs of one host, and sums in it are added in an order of NCCL's choice. */
static bool may_have_window(const nccl_reduction *self)
{
    const comm_info *info = comm_describe(self->ranks);
    return info->local_size == info->size && !self->deterministic && !self->window;
}

static int all_ranks(const nccl_reduction *self, bool mine, bool *all)
{
    int64_t votes = mine;
    TRY(comm_all_reduce(self->ranks, &votes, 1, COMM_I64));
    *all = votes == comm_describe(self->ranks)->size;
    return 0;
}

static void free_window(nccl_reduction *self)
{
    nccl_window_free(self->window);
    self->window = NULL;
}

static bool has_ended(const nccl_reduction *self, nccl_ending *ending)
{
    if (nccl_ending_wait(ending, GRACE_SECONDS))
        return true;
    comm_leave_thread(self->ranks);
    return false;
}

/* A communicator that has met an error is of no use any more, and this one has met it in what it can do without. As
 * long as it has not ended it may write to the window. */
static int replace_communicator(nccl_reduction *self)
{
    nccl_ending *ending = nccl_ending_start(self->nccl->ncclCommAbort, self->communicator);
    int code = 0;
    self->communicator = NULL;
    if (has_ended(self, ending))
        free_window(self);
    else
        code = error_set(ERROR_COMM,
                         "%s has neither registered memory nor ended within %g s (NCCL_WIN_ENABLE=0 in the "
                         "environment does without)",
                         self->name, GRACE_SECONDS);
    self->window = NULL;
    TRY(comm_agree(self->ranks, code));
    return connect_ranks(self);
}

static int remove_window(nccl_reduction *self)
{
    const char *what = "releasing memory that is reduced";
    TRY(await_call(self, nccl_window_deregister(self->window, self->communicator), FINALIZE_SECONDS, what));
    free_window(self);
    return 0;
}

/* The ranks have a window, or none of them has one. */
static int register_window(nccl_reduction *self)
{
    bool all;
    int code, refusing = await_ranks(self, nccl_window_register(self->window, self->communicator),
                                     "registering memory that is reduced", &code);
    TRY(refusing);
    if (refusing > 0)
        return replace_communicator(self);
    TRY(all_ranks(self, nccl_window_exists(self->window), &all));
    return all ? 0 : remove_window(self);
}

static int open_window(nccl_reduction *self, size_t bytes)
{
    bool all;
    self->window = nccl_window_alloc(self->nccl, bytes);
    TRY(all_ranks(self, self->window, &all));
    if (all)
        return register_window(self);
    free_window(self);
    return 0;
}

/* A refusal is no failure, and leaves no message. */
static int alloc(reduction *base, size_t bytes, void **memory)
{
    nccl_reduction *self = (nccl_reduction *)base;
    *memory = NULL;
    TRY(check_works(self));
    if (!may_have_window(self))
        return 0;
    int code = open_window(self, bytes);
    if (code < 0)
        return fail(self, code);
    error_clear();
    if (self->window)
        *memory = nccl_window_memory(self->window);
    return 0;
}

static int release_window(nccl_reduction *self)
{
    TRY(await_streams(self));
    return remove_window(self);
}

/* After a failure NCCL may still be at work in it: `close` frees it then. */
static void free_memory(reduction *base, void *memory)
{
    nccl_reduction *self = (nccl_reduction *)base;
    if (self->failed < 0 || !self->window || nccl_window_memory(self->window) != memory)
        return;
    const error_copy kept = error_save();
    int code = release_window(self);
    if (code < 0)
        fail(self, code);
    error_restore(&kept);
}

/* ---- opening and closing ---- */

/* In good order: everything is done, and the peers end too. */
static int finalize(const nccl_reduction *self)
{
    const char *what = "ending the reductions";
    bool idle[2];
    TRY(check_cuda(self, query(self->compute, &idle[0]), what));
    TRY(check_cuda(self, query(self->sums, &idle[1]), what));
    CHECK(idle[0] && idle[1], ERROR_COMM, "%s: the GPU is still at work", what);
    return await_call(self, self->nccl->ncclCommFinalize(self->communicator), FINALIZE_SECONDS, what);
}

static void end_communicator(nccl_reduction *self)
{
    if (self->failed < 0 || !self->communicator)
        return;
    int code = finalize(self);
    if (code < 0)
        fail(self, code);
    else
        self->ending = nccl_ending_start(self->nccl->ncclCommDestroy, self->communicator);
}

static void destroy(nccl_reduction *self)
{
    free_window(self);
    if (self->ready)
        cudaEventDestroy(self->ready);
    if (self->summed)
        cudaEventDestroy(self->summed);
    if (self->sums)
        cudaStreamDestroy(self->sums);
}

/* The message of what led here is still to be reported. */
static void close_reduction(reduction *base)
{
    nccl_reduction *self = (nccl_reduction *)base;
    if (!self)
        return;
    const error_copy kept = error_save();
    end_communicator(self);
    if (!self->communicator || has_ended(self, self->ending))
        destroy(self);
    free(self);
    error_restore(&kept);
}

static const reduction_ops nccl_ops = {.capturable = true,
                                       .start = start,
                                       .finish = finish,
                                       .sum = sum_now,
                                       .progress = progress,
                                       .synchronize = synchronize,
                                       .alloc = alloc,
                                       .free = free_memory,
                                       .close = close_reduction};

/* NCCL reads the environment once in a process. A name that is set already is the user's wish. */
static void set_environment(const nccl_options *options)
{
    if (!options->deterministic)
        return;
    setenv("NCCL_ALGO", "Ring", 0);
    setenv("NCCL_PROTO", "Simple", 0);
}

/* Before the launches in urgency: a sum that waits behind a queue of the backward's blocks would hold up all ranks. */
static int make_stream(nccl_reduction *self)
{
    int least, greatest;
    TRY(check_cuda(self, cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of the GPU's streams"));
    TRY(check_cuda(self, cudaStreamCreateWithPriority(&self->sums, cudaStreamNonBlocking, greatest),
                   "a stream of the GPU"));
    TRY(check_cuda(self, cudaEventCreateWithFlags(&self->ready, cudaEventDisableTiming), "an event"));
    return check_cuda(self, cudaEventCreateWithFlags(&self->summed, cudaEventDisableTiming), "an event");
}

/* What each rank does alone. */
static int prepare(nccl_reduction *self, const nccl_options *options)
{
    char version[32];
    TRY(cuda_library_check(self->nccl, CUDA_NCCL));
    cuda_library_version(self->nccl, CUDA_NCCL, version);
    snprintf(self->name, sizeof self->name, "NCCL %s", version);
    set_environment(options);
    return make_stream(self);
}

static int open_parts(nccl_reduction *self, const nccl_options *options)
{
    TRY(comm_agree(self->ranks, prepare(self, options)));
    return connect_ranks(self);
}

int nccl_reduction_open(reduction **out, const cuda_libraries *libraries, comm *ranks, cudaStream_t compute,
                        const nccl_options *options)
{
    nccl_reduction *self = calloc(1, sizeof *self);
    int code = comm_agree(ranks, self ? 0 : error_set(ERROR_MEMORY, "no memory for the reductions"));
    if (code < 0) {
        free(self);
        return code;
    }
    *self = (nccl_reduction){.base.ops = &self->table,
                             .table = nccl_ops,
                             .nccl = libraries,
                             .ranks = ranks,
                             .compute = compute,
                             .deadline = options->deadline_seconds,
                             .deterministic = options->deterministic};
    self->table.name = self->name;
    code = open_parts(self, options);
    if (code < 0) {
        fail(self, code);
        close_reduction(&self->base);
        return code;
    }
    *out = &self->base;
    return 0;
}

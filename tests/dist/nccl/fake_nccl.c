/* A library with NCCL's name for the emulated device: ranks of one host add through shared memory that is named by the
 * unique id, as work of their streams. As NCCL's non-blocking communicators, it launches a sum some time after the
 * call, refuses calls while one is under way, and never notices by itself that a peer is gone.
 *
 * FAKE_NCCL in the environment, when a communicator is made, says what goes wrong, several at once: init_hangs,
 * init_fails (on the last rank), launch_hangs, sum_hangs, link_lost (in the second sum), finalize_hangs, destroy_hangs,
 * abort_hangs; and with windows: no_memory (on the last rank), no_windows, one_without_window (the last rank),
 * register_fails (on the last rank), register_hangs, release_fails. With FAKE_NCCL_OLD defined it is a version without
 * windows. One thread, but for ncclCommAbort and ncclCommDestroy. */
#include "base/sixteen_bit.h"
#include "emulated.h"

#include <fcntl.h>
#include <nccl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_RANKS = 8, SLOT_BYTES = 1 << 18, POLLS = 3 /* until a call is done */, HISTORY_BYTES = 64 };

/* Pieces of sums are numbered through; a rank's slot is written again when all have read it. */
typedef struct {
    atomic_ullong written, read;
    uint64_t count; /* of the sum that the slot belongs to */
    int type;
} rank_state;

typedef struct {
    atomic_int attached, finalized, registered;
    rank_state rank[MAX_RANKS];
    char slot[MAX_RANKS][SLOT_BYTES];
} shared_memory;

typedef struct sum {
    struct sum *next;
    struct ncclComm *communicator;
    cudaStream_t stream;
    char *data;
    size_t count, done; /* elements */
    ncclDataType_t type;
    bool written, is_second;
} sum;

typedef enum { CALL_NONE, CALL_INIT, CALL_LAUNCH, CALL_REGISTER, CALL_FINALIZE } call;

struct ncclComm {
    struct ncclComm *next;
    int rank, size, polls;
    call under_way;
    ncclResult_t error;
    atomic_bool aborted;
    shared_memory *shared;
    unsigned long long piece; /* the next one */
    sum *sums;                /* the newest first; captures may run them again, so all are kept */
    size_t n_sums;
    void *window;         /* the registered memory; NULL: none */
    int n_windows;        /* so far */
    ncclWindow_t *handle; /* set when the registration is done */
    char behaviour[64];
    char id[NCCL_UNIQUE_ID_BYTES];
};

static struct ncclComm *communicators; /* never freed: work may still know them */
static char last_error[128];

/* What was done, in order: Alloc, Register, Deregister, Free of memory; finalize, destroy, abort of a communicator. */
static char history[HISTORY_BYTES];
static atomic_int n_history;

static void note(char what)
{
    int place = atomic_fetch_add(&n_history, 1);
    if (place < HISTORY_BYTES - 1)
        history[place] = what;
}

/* Since the last call. */
void fake_nccl_history(char text[HISTORY_BYTES]);

void fake_nccl_history(char text[HISTORY_BYTES])
{
    memcpy(text, history, HISTORY_BYTES);
    memset(history, 0, HISTORY_BYTES);
    atomic_store(&n_history, 0);
}

static bool wants(const struct ncclComm *c, const char *behaviour)
{
    return strstr(c->behaviour, behaviour);
}

static ncclResult_t fail(struct ncclComm *c, ncclResult_t error, const char *text)
{
    snprintf(last_error, sizeof last_error, "%s", text);
    c->error = error;
    return error;
}

static size_t element_bytes(ncclDataType_t type)
{
    return type == ncclFloat16 || type == ncclBfloat16 ? 2 : type == ncclFloat32 ? 4 : 8;
}

static float narrow_value(const uint16_t *x, ncclDataType_t type)
{
    return type == ncclFloat16 ? float16_value(*x) : bfloat16_value(*x);
}

static void add(void *to, const void *from, ncclDataType_t type)
{
    if (type == ncclFloat32)
        *(float *)to += *(const float *)from;
    else if (type == ncclFloat64)
        *(double *)to += *(const double *)from;
    else if (type == ncclInt64)
        *(int64_t *)to += *(const int64_t *)from;
    else {
        float total = narrow_value(to, type) + narrow_value(from, type);
        *(uint16_t *)to = type == ncclFloat16 ? float16_from(total) : bfloat16_from(total);
    }
}

static bool all_have(const struct ncclComm *c, bool written, unsigned long long pieces)
{
    for (int r = 0; r < c->size; r++)
        if (atomic_load(written ? &c->shared->rank[r].written : &c->shared->rank[r].read) < pieces)
            return false;
    return true;
}

static bool all_mean_the_same(const sum *s)
{
    const struct ncclComm *c = s->communicator;
    for (int r = 0; r < c->size; r++)
        if (c->shared->rank[r].count != s->count || c->shared->rank[r].type != (int)s->type)
            return false;
    return true;
}

static void write_slot(sum *s, size_t elements)
{
    struct ncclComm *c = s->communicator;
    size_t bytes = element_bytes(s->type);
    memcpy(c->shared->slot[c->rank], s->data + s->done * bytes, elements * bytes);
    c->shared->rank[c->rank].count = s->count;
    c->shared->rank[c->rank].type = (int)s->type;
    atomic_store(&c->shared->rank[c->rank].written, c->piece + 1);
    s->written = true;
}

static void read_slots(sum *s, size_t elements)
{
    struct ncclComm *c = s->communicator;
    size_t bytes = element_bytes(s->type);
    char *data = s->data + s->done * bytes;
    memcpy(data, c->shared->slot[0], elements * bytes);
    for (int r = 1; r < c->size; r++)
        for (size_t i = 0; i < elements; i++)
            add(data + i * bytes, c->shared->slot[r] + i * bytes, s->type);
    atomic_store(&c->shared->rank[c->rank].read, ++c->piece);
    s->written = false;
    s->done += elements;
}

/* A piece of a sum at most; true when the sum is done. An aborted one ends at once, with anything in its data. */
static bool advance(void *state)
{
    sum *s = state;
    struct ncclComm *c = s->communicator;
    size_t room = SLOT_BYTES / element_bytes(s->type), left = s->count - s->done, n = left < room ? left : room;
    if (atomic_load(&c->aborted))
        return true;
    if (wants(c, "sum_hangs") || (wants(c, "link_lost") && s->is_second)) {
        if (wants(c, "link_lost"))
            fail(c, ncclRemoteError, "the link to 10.0.0.7 is down");
        return false;
    }
    if (!s->written && !all_have(c, false, c->piece))
        return false;
    if (!s->written)
        write_slot(s, n);
    if (!all_have(c, true, c->piece + 1))
        return false;
    if (!all_mean_the_same(s)) {
        fail(c, ncclInvalidUsage, "the ranks have started different sums");
        return false;
    }
    read_slots(s, n);
    if (s->done < s->count)
        return false;
    s->done = 0;
    return true;
}

/* The handle is the window's address, to be recognised. */
static void end_registration(struct ncclComm *c)
{
    if (wants(c, "no_windows") || (wants(c, "one_without_window") && c->rank == c->size - 1))
        c->window = NULL;
    *c->handle = (ncclWindow_t)c->window;
    if (c->window)
        note('R');
}

static ncclResult_t launch(struct ncclComm *c)
{
    cudaError_t status = emulated_submit_until(c->sums->stream, advance, c->sums);
    return status == cudaSuccess ? ncclSuccess : fail(c, ncclUnhandledCudaError, "the sum cannot be launched");
}

static bool is_done(struct ncclComm *c)
{
    if (++c->polls < POLLS)
        return false;
    switch (c->under_way) {
    case CALL_INIT:
        if (wants(c, "init_fails") && c->rank == c->size - 1)
            fail(c, ncclSystemError, "no route to 10.0.0.7");
        return c->error != ncclSuccess ||
               (!wants(c, "init_hangs") && !wants(c, "init_fails") && atomic_load(&c->shared->attached) == c->size);
    case CALL_LAUNCH:
        return !wants(c, "launch_hangs");
    case CALL_REGISTER:
        if (wants(c, "register_fails") && c->rank == c->size - 1)
            fail(c, ncclSystemError, "the memory cannot be mapped");
        return c->error != ncclSuccess || (!wants(c, "register_hangs") && !wants(c, "register_fails") &&
                                           atomic_load(&c->shared->registered) >= c->size * c->n_windows);
    case CALL_FINALIZE:
        return !wants(c, "finalize_hangs") && atomic_load(&c->shared->finalized) == c->size;
    default:
        return true;
    }
}

ncclResult_t ncclGetVersion(int *version)
{
#ifdef FAKE_NCCL_OLD
    *version = NCCL_VERSION(2, 26, 5);
#else
    *version = NCCL_VERSION_CODE;
#endif
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSystemError   ? "unhandled system error"
           : result == ncclRemoteError ? "remote process exited or there was a network error"
                                       : "another error";
}

const char *ncclGetLastError(ncclComm_t c)
{
    (void)c;
    return last_error;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int ids;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/fake_nccl_%d_%d", (int)getpid(), ids++);
    return ncclSuccess;
}

static shared_memory *attach(const struct ncclComm *c)
{
    int file = shm_open(c->id, O_RDWR | O_CREAT, 0600);
    if (file < 0)
        return NULL;
    void *memory = MAP_FAILED;
    if (ftruncate(file, sizeof(shared_memory)) == 0)
        memory = mmap(NULL, sizeof(shared_memory), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return memory == MAP_FAILED ? NULL : memory;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    *out = NULL;
    if (config->blocking != 0 || config->maxCTAs < 1 || config->maxCTAs > 32 || size > MAX_RANKS)
        return ncclInvalidArgument;
    struct ncclComm *c = calloc(1, sizeof *c);
    if (!c)
        return ncclSystemError;
    const char *behaviour = getenv("FAKE_NCCL");
    snprintf(c->behaviour, sizeof c->behaviour, "%s", behaviour ? behaviour : "");
    memcpy(c->id, id.internal, sizeof c->id);
    c->rank = rank;
    c->size = size;
    c->under_way = CALL_INIT;
    c->shared = attach(c);
    c->next = communicators;
    communicators = c;
    if (!c->shared)
        return ncclSystemError;
    if (atomic_fetch_add(&c->shared->attached, 1) + 1 == size) /* the last one */
        shm_unlink(c->id);
    *out = c;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    if (c->error == ncclSuccess && c->under_way != CALL_NONE && is_done(c)) {
        if (c->under_way == CALL_LAUNCH)
            launch(c);
        if (c->under_way == CALL_REGISTER && c->error == ncclSuccess)
            end_registration(c);
        c->under_way = CALL_NONE;
    }
    *state = c->error != ncclSuccess ? c->error : c->under_way != CALL_NONE ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

static ncclResult_t begin(struct ncclComm *c, call which)
{
    if (c->under_way != CALL_NONE || c->error != ncclSuccess || atomic_load(&c->aborted))
        return fail(c, ncclInvalidUsage, "another call is under way");
    c->under_way = which;
    c->polls = 0;
    return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t stream)
{
    sum *s = from == to && op == ncclSum ? calloc(1, sizeof *s) : NULL;
    if (!s)
        return ncclInvalidArgument;
    *s = (sum){c->sums, c, stream, to, count, 0, type, false, c->n_sums++ == 1};
    c->sums = s;
    return begin(c, CALL_LAUNCH);
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    note('f');
    atomic_fetch_add(&c->shared->finalized, 1);
    return begin(c, CALL_FINALIZE);
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    while (wants(c, "destroy_hangs"))
        pause();
    c->window = NULL;
    note('d');
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    while (wants(c, "abort_hangs"))
        pause();
    shm_unlink(c->id);
    atomic_store(&c->aborted, true);
    note('a');
    return ncclSuccess;
}

#ifndef FAKE_NCCL_OLD
static void *allocated; /* one piece at a time */
static size_t allocated_bytes;

ncclResult_t ncclMemAlloc(void **memory, size_t bytes)
{
    const struct ncclComm *c = communicators;
    if (allocated || bytes == 0)
        return ncclInvalidArgument;
    if ((wants(c, "no_memory") && c->rank == c->size - 1) || cudaMalloc(memory, bytes) != cudaSuccess)
        return ncclUnhandledCudaError;
    allocated = *memory;
    allocated_bytes = bytes;
    note('A');
    return ncclSuccess;
}

/* As with NCCL, the pages of a window that a communicator knows must not go before it does. */
ncclResult_t ncclMemFree(void *memory)
{
    if (memory != allocated)
        abort();
    for (const struct ncclComm *c = communicators; c; c = c->next)
        if (c->window == memory && !atomic_load(&c->aborted))
            abort();
    allocated = NULL;
    note('F');
    return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

/* As 2.28: the answer is ncclSuccess, but the work has only begun. */
ncclResult_t ncclCommWindowRegister(ncclComm_t c, void *memory, size_t bytes, ncclWindow_t *window, int flags)
{
    *window = NULL;
    if (memory != allocated || bytes != allocated_bytes || flags != NCCL_WIN_COLL_SYMMETRIC)
        return ncclInvalidArgument;
    c->window = memory;
    c->handle = window;
    c->n_windows++;
    atomic_fetch_add(&c->shared->registered, 1);
    ncclResult_t begun = begin(c, CALL_REGISTER);
    return begun == ncclInProgress ? ncclSuccess : begun;
}

/* Of this rank alone, and done when it returns. */
ncclResult_t ncclCommWindowDeregister(ncclComm_t c, ncclWindow_t window)
{
    if ((void *)window != c->window || emulated_pending() > 0 || c->under_way != CALL_NONE)
        return fail(c, ncclInvalidUsage, "the window is in use");
    if (wants(c, "release_fails"))
        return fail(c, ncclSystemError, "the memory cannot be unmapped");
    c->window = NULL;
    note('D');
    return ncclSuccess;
}
#endif

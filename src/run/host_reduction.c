/* Owns the sums that are under way. Invariant: they are started in the order of the calls. One thread. */
#include "run/host_reduction.h"
#include "base/error.h"

#include <stdlib.h>

typedef struct {
    comm_request request;
    void *device_memory;
    void *staged; /* its copy on the host, kept for later sums; NULL where the memory is the host's */
    size_t bytes, staged_bytes;
} started_sum;

typedef struct {
    reduction base;
    comm *ranks;
    backend *device;
    started_sum *sums;
    size_t n_started, capacity;
} host_reduction;

static int take_sum(host_reduction *h, started_sum **out)
{
    if (h->n_started == h->capacity) {
        size_t capacity = h->capacity ? 2 * h->capacity : 16;
        started_sum *sums = realloc(h->sums, capacity * sizeof *sums);
        CHECK(sums, ERROR_MEMORY, "no memory for %zu reductions", capacity);
        for (size_t i = h->capacity; i < capacity; i++)
            sums[i] = (started_sum){0};
        h->sums = sums;
        h->capacity = capacity;
    }
    *out = &h->sums[h->n_started];
    return 0;
}

static int stage(host_reduction *h, started_sum *sum, void *data, size_t bytes)
{
    sum->device_memory = data;
    sum->bytes = bytes;
    if (h->device->ops->host_memory)
        return 0;
    if (sum->staged_bytes < bytes) {
        void *staged = realloc(sum->staged, bytes);
        CHECK(staged, ERROR_MEMORY, "no memory to reduce %zu bytes", bytes);
        sum->staged = staged;
        sum->staged_bytes = bytes;
    }
    return h->device->ops->read(h->device, sum->staged, data, bytes);
}

static int start_next(host_reduction *h, void *data, size_t count, comm_dtype type)
{
    started_sum *sum = NULL;
    TRY(take_sum(h, &sum));
    TRY(stage(h, sum, data, count * comm_dtype_bytes(type)));
    sum->request = (comm_request){0};
    TRY(comm_all_reduce_start(h->ranks, sum->staged ? sum->staged : data, count, type, &sum->request));
    h->n_started++;
    return 0;
}

static int start(reduction *self, void *data, size_t count, comm_dtype type)
{
    return count > 0 ? start_next((host_reduction *)self, data, count, type) : 0;
}

static int finish_sum(host_reduction *h, started_sum *sum)
{
    TRY(comm_wait(h->ranks, &sum->request));
    return sum->staged ? h->device->ops->write(h->device, sum->device_memory, sum->staged, sum->bytes) : 0;
}

static int finish(reduction *self)
{
    host_reduction *h = (host_reduction *)self;
    for (size_t i = 0; i < h->n_started; i++)
        TRY(finish_sum(h, &h->sums[i]));
    h->n_started = 0;
    return 0;
}

/* The last one started is the first to be waited for. */
static int sum_now(reduction *self, void *data, size_t count, comm_dtype type)
{
    host_reduction *h = (host_reduction *)self;
    if (count == 0)
        return 0;
    TRY(start_next(h, data, count, type));
    TRY(finish_sum(h, &h->sums[h->n_started - 1]));
    h->n_started--;
    return 0;
}

static int progress(reduction *self)
{
    return comm_progress(((host_reduction *)self)->ranks);
}

/* The device's own work always ends: only waiting for peers could hang, and comm.h does not. */
static int synchronize(reduction *self)
{
    host_reduction *h = (host_reduction *)self;
    return h->device->ops->synchronize(h->device);
}

/* After a failure MPI may still write to the staged memory of unfinished sums: that stays. */
static void close_reduction(reduction *self)
{
    host_reduction *h = (host_reduction *)self;
    for (size_t i = h->n_started; i < h->capacity; i++)
        free(h->sums[i].staged);
    if (h->n_started == 0)
        free(h->sums);
    free(h);
}

static const reduction_ops direct_ops = {.name = "MPI",
                                         .start = start,
                                         .finish = finish,
                                         .sum = sum_now,
                                         .progress = progress,
                                         .synchronize = synchronize,
                                         .close = close_reduction};
static const reduction_ops staged_ops = {.name = "MPI through host memory",
                                         .start = start,
                                         .finish = finish,
                                         .sum = sum_now,
                                         .progress = progress,
                                         .synchronize = synchronize,
                                         .close = close_reduction};

int host_reduction_open(reduction **out, comm *ranks, backend *device)
{
    host_reduction *h = calloc(1, sizeof *h);
    CHECK(h, ERROR_MEMORY, "no memory for the reductions");
    h->base.ops = device->ops->host_memory ? &direct_ops : &staged_ops;
    h->ranks = ranks;
    h->device = device;
    *out = &h->base;
    return 0;
}

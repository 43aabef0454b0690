/* Owns the calls of the reduction within a run, and the time for which they keep the launches waiting.
 *
 * Where a launch is done when it returns, or sums go through the host, the host's clock tells. Else the device notes
 * times on both sides of a wait, in a captured step too. One thread. */
#include "base/clock.h"
#include "base/error.h"
#include "run/program_private.h"

#include <stdlib.h>

/* The host goes on while the device computes, and waits, by itself. */
static bool device_waits(const runtime *r)
{
    return r->options.device->ops->timestamp && r->options.reducer->ops->capturable;
}

static int note_wait(const runtime *r, uint32_t number)
{
    backend *device = r->options.device;
    return device_waits(r) ? device->ops->timestamp(device, TIMES_OF_WAITS, number) : 0;
}

/* On a device with memory of its own the launches so far go on meanwhile. */
static void add_advancing(runtime *r, double begin)
{
    if (r->options.device->ops->host_memory)
        r->exposed.advancing += clock_seconds() - begin;
}

static void add_waiting(runtime *r, double begin)
{
    if (!device_waits(r))
        r->exposed.waiting += clock_seconds() - begin;
}

int sums_start(runtime *r, void *data, size_t count, comm_dtype type)
{
    const double begin = clock_seconds();
    int status = r->options.reducer->ops->start(r->options.reducer, data, count, type);
    add_advancing(r, begin);
    return status;
}

int sums_advance(runtime *r)
{
    const double begin = clock_seconds();
    int status = r->options.reducer->ops->progress(r->options.reducer);
    add_advancing(r, begin);
    return status;
}

int sums_finish(runtime *r)
{
    const double begin = clock_seconds();
    TRY(note_wait(r, 2 * r->n_waits));
    TRY(r->options.reducer->ops->finish(r->options.reducer));
    TRY(note_wait(r, 2 * r->n_waits + 1));
    r->n_waits++;
    add_waiting(r, begin);
    return 0;
}

/* On the device's clock these go without: two notes per layer and direction would slow the step down. */
int sums_now(runtime *r, void *data, size_t count, comm_dtype type)
{
    const double begin = clock_seconds();
    int status = r->options.reducer->ops->sum(r->options.reducer, data, count, type);
    add_waiting(r, begin);
    return status;
}

static int add_noted_waits(runtime *r)
{
    backend *device = r->options.device;
    const uint32_t n = 2 * r->n_waits;
    double *seconds = calloc(n + 1, sizeof *seconds);
    CHECK(seconds, ERROR_MEMORY, "no memory for the times of %u waits", r->n_waits);
    int status = n > 0 ? device->ops->elapsed(device, TIMES_OF_WAITS, n, seconds) : 0;
    for (uint32_t i = 0; status == 0 && i < n; i += 2)
        r->exposed.waiting += seconds[i] * (double)r->updates;
    free(seconds);
    return status;
}

int runtime_exposed(runtime *r, exposed_time *exposed)
{
    if (r->options.reducer && r->updates > 0 && device_waits(r))
        TRY(add_noted_waits(r));
    *exposed = r->exposed;
    r->exposed = (exposed_time){.waiting = 0};
    r->updates = 0;
    return 0;
}

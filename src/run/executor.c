/* Owns the loop over a program's launches. Invariant: every rank starts the same reductions in the same order. One
 * thread. */
#include "base/clock.h"
#include "base/error.h"
#include "run/program_private.h"

#include <stdlib.h>

/* Where the time of a launch goes: taken by the host's clock, or by timestamps on the device. NULL: nowhere. */
typedef struct {
    double *seconds; /* one per launch, added to */
    double begin;
} stopwatch;

static comm_dtype comm_type(uint8_t type)
{
    switch (type) {
    case DTYPE_F64:
        return COMM_F64;
    case DTYPE_F16:
        return COMM_F16;
    case DTYPE_BF16:
        return COMM_BF16;
    default:
        return COMM_F32;
    }
}

static int reduce_value(runtime *r, const program *p, const program_launch *launch)
{
    const tensor_desc *desc = graph_desc(&p->step, p->step.nodes[launch->first_node].in[0]);
    if (!r->options.reducer)
        return 0;
    return sums_now(r, kernel_in_out(&launch->args, 0), (size_t)tensor_count(desc), comm_type(desc->dtype));
}

static void *bucket_memory(const runtime *r, const gradient_bucket *bucket)
{
    return (char *)r->arena[KIND_GRADIENT] + bucket->offset;
}

static int start_bucket(runtime *r, const gradient_bucket *bucket)
{
    backend *device = r->options.device;
    uint8_t real = (uint8_t)device->ops->real;
    void *gradients = bucket_memory(r, bucket);
    size_t count = bucket->bytes / dtype_bytes(real);
    if (!bucket->narrowed)
        return sums_start(r, gradients, count, comm_type(real));
    const kernel_args args = {.in = {gradients}, .out = {bucket->narrowed}};
    TRY(device->ops->launch(device, bucket->narrow, &args));
    return sums_start(r, bucket->narrowed, count, comm_type((uint8_t)r->options.reduction_dtype));
}

/* Launches from here on see the sums of the first `n` buckets. */
static int finish_buckets(runtime *r, const program *p, uint32_t n)
{
    backend *device = r->options.device;
    TRY(sums_finish(r));
    for (uint32_t i = 0; i < n; i++) {
        const gradient_bucket *bucket = &p->buckets[i];
        const kernel_args args = {.in = {bucket->narrowed}, .out = {bucket_memory(r, bucket)}};
        if (bucket->narrowed)
            TRY(device->ops->launch(device, bucket->widen, &args));
    }
    return 0;
}

static int run_launch(runtime *r, const program *p, const program_launch *launch)
{
    const graph_node *node = &p->step.nodes[launch->first_node];
    backend *device = r->options.device;
    if (!launch->kernel)
        return reduce_value(r, p, launch);
    int status = device->ops->launch(device, launch->kernel, launch->n_nodes > 1 ? NULL : &launch->args);
    if (status < 0)
        return error_prefix(status, "%s of %s", op_name((op_id)node->op), node->label);
    return r->options.reducer ? sums_advance(r) : 0;
}

static bool reads_gradient(const graph *g, const graph_node *node)
{
    for (int k = 0; k < node->n_in; k++)
        if (graph_desc(g, node->in[k])->kind == KIND_GRADIENT)
            return true;
    return false;
}

static int average_statistics(runtime *r)
{
    const store *s = r->options.tensors;
    backend *device = r->options.device;
    uint8_t type = (uint8_t)device->ops->real;
    if (!r->statistics_mean || !r->options.reducer)
        return 0;
    TRY(sums_start(r, s->statistics, s->statistics_bytes / dtype_bytes(type), comm_type(type)));
    TRY(sums_finish(r));
    return device->ops->launch(device, r->statistics_mean, &r->statistics_args);
}

static int stopwatch_begin(const runtime *r, stopwatch *watch)
{
    backend *device = r->options.device;
    if (watch && device->ops->timestamp)
        return device->ops->timestamp(device, TIMES_OF_LAUNCHES, 0);
    if (watch)
        watch->begin = clock_seconds();
    return 0;
}

static int stopwatch_note(const runtime *r, stopwatch *watch, uint32_t index)
{
    backend *device = r->options.device;
    if (watch && device->ops->timestamp)
        return device->ops->timestamp(device, TIMES_OF_LAUNCHES, index + 1);
    if (watch) {
        double now = clock_seconds();
        watch->seconds[index] += now - watch->begin;
        watch->begin = now;
    }
    return 0;
}

/* `look` sees each launch's results before anything else touches them; NULL: nobody looks. */
static int run_launches(runtime *r, program *p, stopwatch *watch, const launch_look *look)
{
    uint32_t n_buckets = r->options.reducer ? p->n_buckets : 0, started = 0;
    bool finished = false;
    r->n_waits = 0;
    TRY(stopwatch_begin(r, watch));
    for (uint32_t i = 0; i < p->n_launches; i++) {
        const program_launch *launch = &p->launches[i];
        if (started > 0 && !finished && reads_gradient(&p->step, &p->step.nodes[launch->first_node])) {
            TRY(finish_buckets(r, p, started));
            finished = true;
        }
        TRY(run_launch(r, p, launch));
        if (look)
            TRY(look->function(look->context, launch));
        while (started < n_buckets && p->buckets[started].last_node < launch->first_node + launch->n_nodes)
            TRY(start_bucket(r, &p->buckets[started++]));
        TRY(stopwatch_note(r, watch, i));
    }
    if (started > 0 && !finished)
        TRY(finish_buckets(r, p, started));
    TRY(p->updates ? average_statistics(r) : 0);
    p->n_waits = r->n_waits;
    return 0;
}

/* Libraries may load code or measure in a first run, which cannot be captured: the second one is. */
static bool is_time_to_capture(const runtime *r, const program *p)
{
    return r->options.capture && p->has_run && r->options.device->ops->capture_begin &&
           (!r->options.reducer || r->options.reducer->ops->capturable);
}

static int capture(runtime *r, program *p)
{
    backend *device = r->options.device;
    TRY(device->ops->capture_begin(device));
    int status = run_launches(r, p, NULL, NULL);
    int ended = device->ops->capture_end(device, &p->captured); /* in any case, and its reason is the earlier one */
    status = ended < 0 ? ended : status;
    return status < 0 ? error_prefix(status, "capturing the step (run.capture = no does without)") : 0;
}

int program_run(runtime *r, program *p)
{
    backend *device = r->options.device;
    if (!p->captured && is_time_to_capture(r, p))
        TRY(capture(r, p));
    r->updates += p->updates;
    if (p->captured) {
        r->n_waits = p->n_waits;
        TRY(device->ops->replay(device, p->captured));
        return r->options.reducer ? sums_advance(r) : 0;
    }
    p->has_run = true;
    return run_launches(r, p, NULL, NULL);
}

int program_run_looking(runtime *r, program *p, const launch_look *look)
{
    TRY(run_launches(r, p, NULL, look));
    p->has_run = true;
    return runtime_synchronize(r);
}

static int add_elapsed(const runtime *r, const program *p, double *launch_seconds)
{
    backend *device = r->options.device;
    double *seconds = malloc((p->n_launches + 1) * sizeof *seconds);
    CHECK(seconds, ERROR_MEMORY, "no memory for the times of %u launches", p->n_launches);
    int status = device->ops->elapsed(device, TIMES_OF_LAUNCHES, p->n_launches + 1, seconds);
    for (uint32_t i = 0; status == 0 && i < p->n_launches; i++)
        launch_seconds[i] += seconds[i];
    free(seconds);
    return status;
}

int program_run_timed(runtime *r, program *p, double *launch_seconds)
{
    stopwatch watch = {.seconds = launch_seconds};
    TRY(run_launches(r, p, &watch, NULL));
    p->has_run = true;
    TRY(runtime_synchronize(r));
    return r->options.device->ops->timestamp ? add_elapsed(r, p, launch_seconds) : 0;
}

int runtime_synchronize(const runtime *r)
{
    backend *device = r->options.device;
    return r->options.reducer ? r->options.reducer->ops->synchronize(r->options.reducer)
                              : device->ops->synchronize(device);
}

int runtime_await(const runtime *r, runtime_poll *poll, void *context)
{
    enum { SPINS = 1000, POLL_NS = 50000 };
    static const double patient_seconds = 10; /* then there is nothing to lose by a wait for everything */
    const double limit = clock_seconds() + patient_seconds;
    reduction *reducer = r->options.reducer;
    for (int polls = 0;; polls++) {
        bool done = false;
        TRY(poll(context, &done));
        if (done)
            return 0;
        if (reducer)
            TRY(reducer->ops->progress(reducer));
        if (clock_seconds() > limit)
            TRY(runtime_synchronize(r)); /* which has a deadline */
        if (polls > SPINS)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

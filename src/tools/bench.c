/* Owns the timing of steps, of the launches within, and of what the device can do at best. Times are the median step's.
 * One thread. */
#include "tools/bench.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/order.h"
#include "base/rng.h"
#include "base/sixteen_bit.h"
#include "session/feed.h"
#include "tools/node_cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP_STEPS = 3, MATMUL_SIZE = 2048, LARGE_MATMUL_SIZE = 8192, REPEATS = 5 };
static const size_t copied_bytes = (size_t)64 << 20, large_copied_bytes = (size_t)1 << 30;

typedef struct {
    session *e;
    program *p;
    double *step_seconds;   /* one per step, sorted in the end */
    double *launch_seconds; /* one per launch, of all timed steps together */
    int steps;
    exposed_time exposed;     /* of a step */
    double unreduced_seconds; /* of a step without the reductions, launched one by one */
    double prepare_seconds;   /* of all kernels: mostly of plans that are timed at their first use */
} timing;

static double median(const timing *t)
{
    return t->step_seconds[t->steps / 2];
}

/* ---- what the device can do ---- */

/* One piece of work to be timed: a launch, or a copy of `bytes` where there is no kernel. */
typedef struct {
    kernel *k;
    kernel_args args;
    size_t bytes;
} probe;

static int run_probe(backend *device, const probe *p)
{
    if (p->k)
        return device->ops->launch(device, p->k, &p->args);
    return device->ops->copy(device, p->args.out[0], p->args.in[0], p->bytes);
}

/* Seconds of the fastest of a few runs. */
static int time_probe(backend *device, const probe *p, double *seconds)
{
    *seconds = INFINITY;
    TRY(run_probe(device, p));
    for (int i = 0; i < REPEATS; i++) {
        double taken, begin = clock_seconds();
        if (device->ops->timestamp)
            TRY(device->ops->timestamp(device, TIMES_OF_LAUNCHES, 0));
        TRY(run_probe(device, p));
        if (device->ops->timestamp)
            TRY(device->ops->timestamp(device, TIMES_OF_LAUNCHES, 1));
        TRY(device->ops->synchronize(device));
        taken = clock_seconds() - begin;
        if (device->ops->timestamp)
            TRY(device->ops->elapsed(device, TIMES_OF_LAUNCHES, 2, &taken));
        *seconds = fmin(*seconds, taken);
    }
    return 0;
}

static void put_number(void *numbers, dtype type, size_t i, double number)
{
    switch (type) {
    case DTYPE_F16:
        ((uint16_t *)numbers)[i] = float16_from((float)number);
        break;
    case DTYPE_BF16:
        ((uint16_t *)numbers)[i] = bfloat16_from((float)number);
        break;
    case DTYPE_F64:
        ((double *)numbers)[i] = number;
        break;
    default:
        ((float *)numbers)[i] = (float)number;
    }
}

/* A GPU takes less power for zeros, and is faster with them than in training: numbers from a block that repeats. */
static int write_random(backend *device, char *memory, size_t bytes)
{
    enum { BLOCK = 1 << 18 };
    size_t block_bytes = BLOCK * dtype_bytes(device->ops->activation);
    void *block = malloc(block_bytes);
    CHECK(block, ERROR_MEMORY, "no memory for random numbers");
    for (size_t i = 0; i < BLOCK; i++)
        put_number(block, device->ops->activation, i, rng_uniform(0, rng_stream(RNG_SYNTHETIC, 0), i) - 0.5);
    int status = 0;
    for (size_t i = 0; i < bytes && status == 0; i += block_bytes)
        status = device->ops->write(device, memory + i, block, bytes - i < block_bytes ? bytes - i : block_bytes);
    free(block);
    return status;
}

static int with_memory(backend *device, size_t bytes, probe *p, double *seconds)
{
    char *memory = device->ops->alloc(device, 3 * bytes + p->bytes);
    CHECK(memory, ERROR_MEMORY, "no memory to measure the device with");
    int status = p->k ? write_random(device, memory, 2 * bytes) : device->ops->zero(device, memory, 2 * bytes);
    p->args =
        (kernel_args){.in = {memory, memory + bytes}, .out = {memory + 2 * bytes}, .workspace = memory + 3 * bytes};
    if (status == 0)
        status = time_probe(device, p, seconds);
    device->ops->free(device, memory);
    return status;
}

int bench_matmul(backend *device, int32_t size, double *flops)
{
    tensor_desc square = {.dim = {size, 1, 1, size},
                          .dtype = (uint8_t)device->ops->activation,
                          .layout = LAYOUT_NHWC,
                          .kind = KIND_ACTIVATION};
    kernel_request request = {.node = {.op = OP_LINEAR, .n_in = 2, .n_out = 1}, .label = "matrix product"};
    request.in[0] = request.in[1] = request.out[0] = square;
    probe p = {0};
    double seconds = INFINITY;
    TRY(device->ops->prepare(device, &request, &p.k, &p.bytes)); /* bytes: of its workspace */
    p.bytes += 256;
    int status = with_memory(device, tensor_bytes(&square), &p, &seconds);
    device->ops->release(device, p.k);
    TRY(status);
    *flops = 2.0 * size * size * size / seconds;
    return 0;
}

/* Bytes read and written a second by a large copy. */
static int measure_copy(backend *device, double *rate)
{
    size_t bytes = device->ops->host_memory ? copied_bytes : large_copied_bytes;
    probe p = {.bytes = bytes};
    double seconds = INFINITY;
    TRY(with_memory(device, bytes, &p, &seconds));
    *rate = 2 * (double)bytes / seconds;
    return 0;
}

/* ---- steps ---- */

static int run_step(timing *t, feed *batches, double *launch_seconds)
{
    feed_batch batch;
    const double lr = 1e-3;
    runtime *run = &t->e->run;
    TRY(feed_next(batches, &batch));
    TRY(program_write(batch.step, run, "lr", &lr, sizeof lr));
    return launch_seconds ? program_run_timed(run, batch.step, launch_seconds) : program_run(run, batch.step);
}

/* Per step, the ranks' mean. */
static int measure_exposed(timing *t)
{
    exposed_time mine;
    TRY(runtime_exposed(&t->e->run, &mine));
    double sums[2] = {mine.waiting, mine.advancing};
    TRY(comm_all_reduce(t->e->ranks, sums, 2, COMM_F64));
    const double share = 1.0 / t->e->info->size / t->steps;
    t->exposed = (exposed_time){.waiting = sums[0] * share, .advancing = sums[1] * share};
    return 0;
}

/* As in training: a device with memory of its own has the next steps in its queue while it works. */
static int time_steps(timing *t, feed *batches)
{
    backend *device = t->e->device;
    for (int i = 0; i < WARM_UP_STEPS; i++)
        TRY(run_step(t, batches, NULL));
    TRY(runtime_synchronize(&t->e->run));
    TRY(runtime_exposed(&t->e->run, &t->exposed)); /* of warming up: not wanted */
    if (device->ops->timestamp)
        TRY(device->ops->timestamp(device, TIMES_OF_LAUNCHES, 0));
    for (int i = 0; i < t->steps; i++) {
        double begin = clock_seconds();
        TRY(run_step(t, batches, NULL));
        if (device->ops->timestamp)
            TRY(device->ops->timestamp(device, TIMES_OF_LAUNCHES, (uint32_t)i + 1));
        t->step_seconds[i] = clock_seconds() - begin;
    }
    TRY(runtime_synchronize(&t->e->run));
    TRY(measure_exposed(t));
    return device->ops->timestamp
               ? device->ops->elapsed(device, TIMES_OF_LAUNCHES, (uint32_t)t->steps + 1, t->step_seconds)
               : 0;
}

static int time_launches(timing *t, feed *batches)
{
    for (int i = 0; i < t->steps; i++)
        TRY(run_step(t, batches, t->launch_seconds));
    return 0;
}

/* The weights of the ranks part ways here: nothing follows but the report. */
static int time_without_sums(timing *t, feed *batches)
{
    reduction *reducer = t->e->run.options.reducer;
    if (!reducer)
        return 0;
    double *launch_seconds = calloc(t->p->n_launches, sizeof *launch_seconds);
    CHECK(launch_seconds, ERROR_MEMORY, "no memory for %u times", t->p->n_launches);
    t->e->run.options.reducer = NULL;
    int status = 0;
    for (int i = 0; i < t->steps && status == 0; i++)
        status = run_step(t, batches, launch_seconds);
    for (uint32_t i = 0; i < t->p->n_launches; i++)
        t->unreduced_seconds += launch_seconds[i] / t->steps;
    t->e->run.options.reducer = reducer;
    free(launch_seconds);
    return status;
}

static int time_all(timing *t)
{
    feed *batches = NULL;
    TRY(feed_open(&batches, t->e, true));
    int status = time_steps(t, batches);
    if (status == 0)
        status = time_launches(t, batches);
    if (status == 0)
        status = time_without_sums(t, batches);
    if (session_closes(t->e, status))
        feed_close(&batches);
    qsort(t->step_seconds, (size_t)t->steps, sizeof *t->step_seconds, order_doubles);
    return status;
}

/* ---- the report ---- */

/* What the nodes of one op, or of one launch, take together, a step. `floor`: the time of its arithmetic or of its
 * bytes alone, whichever is longer. */
typedef struct {
    const char *name; /* of the op, or "losses" of several in one launch */
    int nodes;
    double seconds, macs, bytes, floor;
} op_cost;

static int by_seconds(const void *a, const void *b)
{
    const op_cost *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void print_cost(logger *log, const char *name, const char *layer, const op_cost *cost, double step)
{
    char rate[32] = "";
    if (cost->macs > 0)
        snprintf(rate, sizeof rate, "%.1f", 2e-9 * cost->macs / cost->seconds);
    log_info(log, "  %-24s %-26s %5d %9.3f %6.1f%% %9s %8.1f %6.0f%%", name, layer, cost->nodes, 1e3 * cost->seconds,
             100 * cost->seconds / step, rate, 1e-9 * cost->bytes / cost->seconds, 100 * cost->floor / cost->seconds);
}

static void add_node(const graph *g, uint32_t index, const device_rates *rates, op_cost *cost)
{
    const graph_node *node = &g->nodes[index];
    cost->nodes++;
    cost->macs += graph_node_macs(g, node);
    cost->bytes += node_bytes(g, node);
    cost->floor += node_floor(g, node, rates);
}

static void print_costs(const timing *t, const device_rates *rates, bool per_node)
{
    const graph *g = &t->p->step;
    op_cost costs[OP_COUNT] = {{0}};
    logger *log = t->e->log;
    double step = 0;
    for (uint32_t i = 0; i < t->p->n_launches; i++)
        step += t->launch_seconds[i] / t->steps;
    log_info(log, "  launches one by one: %.2f ms", 1e3 * step);
    log_info(log, "  %-24s %-26s %5s %9s %7s %9s %8s %7s", "op", per_node ? "layer" : "", "nodes", "ms", "share",
             "GFLOP/s", "GB/s", "floor");
    for (uint32_t i = 0; i < t->p->n_launches; i++) {
        const program_launch *launch = &t->p->launches[i];
        op_id op = (op_id)g->nodes[launch->first_node].op;
        bool losses = launch->n_nodes > 1 && op_is_loss(op);
        op_cost one = {.name = losses ? "losses" : op_name(op), .seconds = t->launch_seconds[i] / t->steps};
        costs[op].name = one.name;
        costs[op].seconds += one.seconds;
        for (uint32_t k = 0; k < launch->n_nodes; k++) {
            add_node(g, launch->first_node + k, rates, &one);
            add_node(g, launch->first_node + k, rates, &costs[op]);
        }
        if (per_node)
            print_cost(log, one.name, g->nodes[launch->first_node].label, &one, step);
    }
    qsort(costs, OP_COUNT, sizeof *costs, by_seconds);
    for (int i = 0; i < OP_COUNT && costs[i].nodes && !per_node; i++)
        print_cost(log, costs[i].name, "", &costs[i], step);
}

/* Arithmetic and floor of a whole step. */
static op_cost whole_step(const graph *g, const device_rates *rates)
{
    op_cost all = {0};
    for (uint32_t i = 0; i < g->n_nodes; i++)
        add_node(g, i, rates, &all);
    return all;
}

static void print_communication(const timing *t)
{
    double reduced = 0;
    if (!t->e->run.options.reducer)
        return;
    for (uint32_t i = 0; i < t->p->n_launches; i++)
        reduced += t->launch_seconds[i] / t->steps;
    const double exposed = t->exposed.waiting + t->exposed.advancing;
    log_info(t->e->log,
             "  reductions (%s): %.2f ms of a step are exposed, %.1f%%: %.2f ms of waiting for sums, %.2f ms of moving "
             "them on; launched one by one a step without them is %.2f ms shorter",
             t->e->run.options.reducer->ops->name, 1e3 * exposed, 100 * exposed / median(t), 1e3 * t->exposed.waiting,
             1e3 * t->exposed.advancing, 1e3 * (reduced - t->unreduced_seconds));
}

static int print_result(const timing *t, const bench_options *options)
{
    const session *e = t->e;
    device_rates rates;
    TRY(bench_matmul(e->device, e->device->ops->host_memory ? MATMUL_SIZE : LARGE_MATMUL_SIZE, &rates.flops));
    TRY(measure_copy(e->device, &rates.bytes));
    op_cost all = whole_step(&t->p->step, &rates);
    double images_per_second = e->train_plan.options.batch / median(t), flops = 2 * all.macs / median(t);
    if (options->json) {
        log_info(e->log,
                 "{\"images_per_second\": %.4f, \"step_ms\": %.4f, \"gflops\": %.2f, \"matmul_gflops\": %.2f, "
                 "\"copy_gbs\": %.2f, \"floor_ms\": %.4f, \"exposed_ms\": %.4f}",
                 images_per_second, 1e3 * median(t), 1e-9 * flops, 1e-9 * rates.flops, 1e-9 * rates.bytes,
                 1e3 * all.floor, 1e3 * (t->exposed.waiting + t->exposed.advancing));
        return 0;
    }
    log_info(e->log, "%s (%s), batch %d on %d rank%s, %s", e->step.model.network->name,
             e->step.model.teskd ? "teskd" : "plain", e->train_plan.options.batch, e->info->size,
             e->info->size > 1 ? "s" : "", e->device->ops->description(e->device));
    log_info(e->log, "  %.2f images/s; step %.2f ms (fastest %.2f, slowest %.2f of %d)", images_per_second,
             1e3 * median(t), 1e3 * t->step_seconds[0], 1e3 * t->step_seconds[t->steps - 1], t->steps);
    log_info(e->log, "  made ready in %.1f s", t->prepare_seconds);
    log_info(e->log, "  %.1f GFLOP/s a rank: %.0f%% of a matrix product's %.1f", 1e-9 * flops,
             100 * flops / rates.flops, 1e-9 * rates.flops);
    log_info(e->log, "  op by op the step cannot be faster than %.2f ms at these rates and a copy's %.1f GB/s: %.0f%%",
             1e3 * all.floor, 1e-9 * rates.bytes, 100 * all.floor / median(t));
    print_communication(t);
    print_costs(t, &rates, options->per_node);
    return 0;
}

int bench_training(session *e, const bench_options *options)
{
    timing t = {.e = e, .steps = options->steps};
    double begin = clock_seconds();
    TRY(session_build_training(e));
    TRY(session_bind(e));
    t.prepare_seconds = clock_seconds() - begin;
    t.p = session_last_size(e)[0];
    t.step_seconds = calloc((size_t)t.steps, sizeof *t.step_seconds);
    t.launch_seconds = calloc(t.p->n_launches, sizeof *t.launch_seconds);
    int status = t.step_seconds && t.launch_seconds ? 0 : error_set(ERROR_MEMORY, "no memory for %d timings", t.steps);
    if (status == 0)
        status = time_all(&t);
    if (status == 0)
        status = print_result(&t, options);
    free(t.step_seconds);
    free(t.launch_seconds);
    return status;
}

/* Owns the timing of steps. Rates are of this rank times the ranks; times are the median step's. One thread. */
#include "train/bench.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum { WARM_UP_STEPS = 2, MATMUL_SIZE = 2048, MATMUL_REPEATS = 5 };

typedef struct {
    experiment *e;
    program *p;
    double *step_seconds, *node_seconds;
    int steps;
} timing;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const timing *t)
{
    return t->step_seconds[t->steps / 2];
}

/* Seconds of one launch of a large square matrix product on the device, the best of a few. */
static int time_matmul(backend *device, double *seconds)
{
    tensor_desc square = {{MATMUL_SIZE, 1, 1, MATMUL_SIZE}, (uint8_t)device->ops->real, LAYOUT_NHWC, KIND_ACTIVATION};
    kernel_request request = {.node = {.op = OP_LINEAR, .n_in = 2, .n_out = 1}, .label = "matrix product"};
    request.in[0] = request.in[1] = request.out[0] = square;
    kernel *product;
    size_t workspace_bytes = 0, bytes = tensor_bytes(&square);
    TRY(device->ops->prepare(device, &request, &product, &workspace_bytes));
    char *memory = device->ops->alloc(device, 3 * bytes + workspace_bytes + 1);
    int status = memory ? 0 : error_set(ERROR_MEMORY, "no memory for a matrix product of %d", MATMUL_SIZE);
    *seconds = 1e30;
    if (memory)
        memset(memory, 0, 2 * bytes);
    for (int i = 0; i < MATMUL_REPEATS && status == 0; i++) {
        kernel_args args = {
            .in = {memory, memory + bytes}, .out = {memory + 2 * bytes}, .workspace = memory + 3 * bytes};
        double begin = run_clock();
        status = device->ops->launch(device, product, &args);
        double taken = run_clock() - begin;
        *seconds = taken < *seconds ? taken : *seconds;
    }
    if (memory)
        device->ops->free(device, memory);
    device->ops->release(device, product);
    return status;
}

static int time_steps(timing *t)
{
    loader *batches = NULL;
    loader_batch batch;
    TRY(experiment_open_loader(t->e, true, &batches));
    int status = 0;
    for (int i = -WARM_UP_STEPS; i < t->steps && status == 0; i++) {
        double begin = run_clock();
        status = loader_next(batches, &batch);
        const sized_program *sized = status == 0 ? experiment_feed_training(t->e, &batch) : NULL;
        if (sized) {
            *(double *)program_value(sized->program, &t->e->run, "lr", NULL) = 1e-3;
            status = program_run(&t->e->run, sized->program, i >= 0 ? t->node_seconds : NULL);
        }
        if (i >= 0)
            t->step_seconds[i] = run_clock() - begin;
    }
    loader_close(&batches);
    qsort(t->step_seconds, (size_t)t->steps, sizeof *t->step_seconds, by_value);
    return status;
}

static double node_bytes(const graph *g, const graph_node *node)
{
    double bytes = 0;
    for (int k = 0; k < node->n_in; k++)
        bytes += (double)tensor_bytes(graph_desc(g, node->in[k]));
    for (int k = 0; k < node->n_out; k++)
        bytes += (double)tensor_bytes(graph_desc(g, node->out[k]));
    return bytes;
}

/* What the nodes of one op take together, a step. */
typedef struct {
    op_id op;
    int nodes;
    double seconds, macs, bytes;
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
    log_info(log, "  %-24s %-26s %5d %9.2f %6.1f%% %9s %8.1f", name, layer, cost->nodes, 1e3 * cost->seconds,
             100 * cost->seconds / step, rate, 1e-9 * cost->bytes / cost->seconds);
}

static void print_costs(const timing *t, bool per_node)
{
    const graph *g = &t->p->step;
    op_cost costs[OP_COUNT] = {{0}};
    logger *log = t->e->log;
    log_info(log, "  %-24s %-26s %5s %9s %7s %9s %8s", "op", per_node ? "layer" : "", "nodes", "ms", "share", "GFLOP/s",
             "GB/s");
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        op_cost one = {(op_id)node->op, 1, t->node_seconds[i] / t->steps, graph_node_macs(g, node),
                       node_bytes(g, node)};
        op_cost *sum = &costs[node->op];
        *sum =
            (op_cost){one.op, sum->nodes + 1, sum->seconds + one.seconds, sum->macs + one.macs, sum->bytes + one.bytes};
        if (per_node)
            print_cost(log, op_name(one.op), g->labels[i], &one, median(t));
    }
    qsort(costs, OP_COUNT, sizeof *costs, by_seconds);
    for (int i = 0; i < OP_COUNT && costs[i].nodes && !per_node; i++)
        print_cost(log, op_name(costs[i].op), "", &costs[i], median(t));
}

static int print_result(const timing *t, const bench_options *options)
{
    const experiment *e = t->e;
    double macs = 0, matmul_seconds;
    for (uint32_t i = 0; i < t->p->step.n_nodes; i++)
        macs += graph_node_macs(&t->p->step, &t->p->step.nodes[i]);
    TRY(time_matmul(e->device, &matmul_seconds));
    double images_per_second = e->batch / median(t), gflops = 2e-9 * macs / median(t);
    double matmul_gflops = 2e-9 * MATMUL_SIZE * (double)MATMUL_SIZE * MATMUL_SIZE / matmul_seconds;
    if (options->json) {
        log_info(e->log, "{\"images_per_second\": %.4f, \"step_ms\": %.4f, \"gflops\": %.2f, \"matmul_gflops\": %.2f}",
                 images_per_second, 1e3 * median(t), gflops, matmul_gflops);
        return 0;
    }
    log_info(e->log, "%s (%s), batch %d on %d ranks, %s", e->step.model.network->name,
             e->step.model.teskd ? "teskd" : "plain", e->batch, e->info->size, e->device->ops->description(e->device));
    log_info(e->log, "  %.2f images/s; step %.2f ms (fastest %.2f, slowest %.2f of %d)", images_per_second,
             1e3 * median(t), 1e3 * t->step_seconds[0], 1e3 * t->step_seconds[t->steps - 1], t->steps);
    log_info(e->log, "  %.1f GFLOP/s a rank: %.0f%% of a matrix product's %.1f", gflops, 100 * gflops / matmul_gflops,
             matmul_gflops);
    print_costs(t, options->per_node);
    return 0;
}

int bench_training(experiment *e, const bench_options *options)
{
    timing t = {.e = e, .steps = options->steps};
    TRY(experiment_build_training(e));
    TRY(experiment_bind(e));
    t.p = e->training[0].program;
    t.step_seconds = calloc((size_t)t.steps, sizeof *t.step_seconds);
    t.node_seconds = calloc(t.p->step.n_nodes, sizeof *t.node_seconds);
    int status = t.step_seconds && t.node_seconds ? 0 : error_set(ERROR_MEMORY, "no memory for %d timings", t.steps);
    if (status == 0)
        status = time_steps(&t);
    if (status == 0)
        status = print_result(&t, options);
    free(t.step_seconds);
    free(t.node_seconds);
    return status;
}

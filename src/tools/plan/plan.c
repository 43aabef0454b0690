/* Owns the plan of a run on a cluster. Holds no state; any thread. */
#include "tools/plan/plan.h"

#include "base/error.h"
#include "session/configure.h"
#include "tools/plan/private.h"

#include <math.h>
#include <string.h>

static const double sum_start_seconds = 20e-6;

plan_options plan_defaults(void)
{
    return (plan_options){.nodes = 1,
                          .gpus = 8,
                          .net_gbits = 200,
                          .adapters = 1,
                          .inside_gbytes = 300,
                          .hop_us = 10,
                          .noise_percent = 3.2,
                          .net_percent = 82,
                          .image_kbytes = 110,
                          .images_per_core = 600};
}

static int find_pattern(const char *name, sum_pattern *pattern)
{
    for (int i = 0; i < PATTERNS; i++)
        if (strcmp(sum_pattern_names[i], name) == 0) {
            *pattern = (sum_pattern)i;
            return 0;
        }
    return error_set(ERROR_USAGE, "--pattern %s: expected tree, ring or host-ring", name);
}

/* What a run would sum by: NCCL's choice, its ring where the same bits are wanted, or MPI. */
static int choose_pattern(const settings *c, const plan_options *o, sum_pattern *pattern)
{
    *pattern = c->run.deterministic ? PATTERN_RING : PATTERN_TREE;
    if (c->run.reduction == REDUCTION_MPI)
        *pattern = PATTERN_HOST_RING;
    return o->pattern ? find_pattern(o->pattern, pattern) : 0;
}

static int fill_cluster(planned *p)
{
    const plan_options *o = p->options;
    p->cluster = (plan_cluster){.hosts = (int)o->nodes,
                                .gpus = (int)o->gpus,
                                .inside = 1e9 * o->inside_gbytes,
                                .net = 1e9 / 8 * o->net_gbits * (double)o->adapters,
                                .net_share = o->net_percent / 100,
                                .hop_seconds = 1e-6 * o->hop_us,
                                .start_seconds = sum_start_seconds,
                                .noise = o->noise_percent / 100};
    return choose_pattern(p->config, o, &p->cluster.pattern);
}

static int fill_request(planned *p)
{
    const settings *c = p->config;
    const plan_options *o = p->options;
    const int64_t gpus = o->nodes * o->gpus;
    CHECK(o->gpu_batch > 0 || c->train.batch % gpus == 0, ERROR_SETTINGS,
          "train.batch: %lld images do not divide among %lld GPUs; --gpu-batch N plans with N images for each",
          (long long)c->train.batch, (long long)gpus);
    const int64_t images = o->gpu_batch > 0 ? o->gpu_batch : c->train.batch / gpus;
    CHECK(images <= INT32_MAX / gpus, ERROR_USAGE, "--gpu-batch %lld: too many images for %lld GPUs", (long long)images,
          (long long)gpus);
    p->request = (plan_request){.gpu_batch = (int32_t)images,
                                .gpus = gpus,
                                .buckets = configure_buckets(c),
                                .halved = c->run.reduce_16bit && c->run.precision != PRECISION_FP32 &&
                                          c->run.precision != PRECISION_TF32};
    return 0;
}

int plan_make_step(plan_step *step, const settings *config, const plan_options *options, const plan_request *request)
{
    CHECK(!options->layers || options->step_ms > 0, ERROR_USAGE,
          "--layers %s: how long a step of these layers takes is not known; --step-ms says it", options->layers);
    if (options->layers)
        TRY(plan_step_read(step, config, request, options->layers));
    else
        TRY(plan_step_build(step, config, request));
    if (options->step_ms > 0)
        step->timeline.seconds = 1e-3 * options->step_ms;
    return 0;
}

plan_row plan_row_of(const planned *p, int64_t nodes)
{
    const plan_options *o = p->options;
    plan_cluster cluster = p->cluster;
    cluster.hosts = (int)nodes;
    plan_row row = {.nodes = nodes, .gpus = nodes * o->gpus, .batch = nodes * o->gpus * p->request.gpu_batch};
    row.time = plan_predict(&p->step.timeline, &cluster, NULL);
    row.images_per_second = (double)row.batch / row.time.step;
    row.efficiency = row.time.alone / row.time.step;
    row.epoch_seconds = (double)p->step.train_images / row.images_per_second;
    if (p->step.decoded) {
        row.storage = row.images_per_second / (double)nodes * 1e3 * o->image_kbytes;
        row.cores = ceil(row.images_per_second / (double)nodes / o->images_per_core);
    }
    return row;
}

/* 1, 2, 4 ... nodes, and all. */
static void fill_rows(planned *p)
{
    for (int64_t nodes = 1; nodes < p->options->nodes; nodes *= 2)
        p->rows[p->n_rows++] = plan_row_of(p, nodes);
    p->rows[p->n_rows++] = plan_row_of(p, p->options->nodes);
}

static int report(const planned *p, logger *log)
{
    if (p->options->json) {
        if (log->rank == 0)
            plan_print_json(p, log->out);
        return 0;
    }
    plan_print_tables(p, log);
    return plan_print_advice(p, log);
}

int plan_run(const settings *config, const plan_options *options, logger *log)
{
    planned p = {.config = config, .options = options};
    TRY(fill_cluster(&p));
    TRY(fill_request(&p));
    TRY(plan_make_step(&p.step, config, options, &p.request));
    fill_rows(&p);
    int status = report(&p, log);
    plan_step_free(&p.step);
    return status;
}

/* Owns the way from settings to a timeline of sums. Invariant: buckets are those that a run cuts (run/program.h), and
 * the updates wait where the executor does. One thread. */
#include "tools/plan/step.h"

#include "base/error.h"
#include "graph/plan.h"
#include "kernels/backend.h"
#include "run/program.h"
#include "session/configure.h"
#include "tools/node_cost.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an H100 is to reach in large products of a precision, and in copies; no run has shown it yet. */
static const double h100_flops[] = {[PRECISION_AUTO] = 650e12,
                                    [PRECISION_FP16] = 650e12,
                                    [PRECISION_BF16] = 650e12,
                                    [PRECISION_TF32] = 330e12,
                                    [PRECISION_FP32] = 55e12};
static const double h100_bytes = 3.0e12, h100_launch_seconds = 3e-6;
/* What fused kernels are to leave of one op after the other: resnet18 with students at batch 256 then takes the 22 ms
 * of docs/performance.md. */
static const double fused_share = 0.81;

static bool has_16_bits(const settings *c)
{
    return c->run.precision != PRECISION_FP32 && c->run.precision != PRECISION_TF32;
}

/* A share of a micro-batch's time as one of the step's: sums are those of the last micro-batch. */
static double share_of_step(const settings *c, double share)
{
    return ((double)(c->train.accumulate - 1) + share) / (double)c->train.accumulate;
}

static void add_sum(plan_step *s, plan_sum_kind kind, double bytes, double at)
{
    s->timeline.sums[s->timeline.n_sums++] = (plan_sum){.kind = kind, .bytes = bytes, .at = at};
}

static int make_room(plan_step *s, size_t sums)
{
    s->timeline.sums = calloc(sums, sizeof *s->timeline.sums);
    CHECK(s->timeline.sums, ERROR_MEMORY, "no memory for %zu sums", sums);
    return 0;
}

/* ---- the settings' own graph ---- */

static bool reads_gradient(const graph *g, const graph_node *node)
{
    for (int k = 0; k < node->n_in; k++)
        if (graph_desc(g, node->in[k])->kind == KIND_GRADIENT)
            return true;
    return false;
}

/* Of one launch of `length` nodes. */
static double launch_floor(const settings *c, const graph *g, uint32_t first, uint32_t length)
{
    const device_rates rates = {.flops = h100_flops[c->run.precision], .bytes = h100_bytes};
    double seconds = 0;
    for (uint32_t i = first; i < first + length; i++)
        seconds += node_floor(g, &g->nodes[i], &rates);
    return fmax(seconds, h100_launch_seconds);
}

static double statistics_bytes(const graph *g)
{
    double bytes = 0;
    for (uint32_t v = 1; v < g->n_values; v++)
        if (g->values[v].desc.kind == KIND_STATE && store_role(g->values[v].name) == ENTRY_MODEL)
            bytes += (double)tensor_bytes(&g->values[v].desc);
    return bytes;
}

/* In seconds since the micro-batch began; the walk is the executor's. */
static double place_sums(plan_step *s, const settings *c, const program *p, double bytes_share)
{
    const graph *g = &p->step;
    double now = 0;
    uint32_t started = 0, length;
    s->timeline.updates = -1;
    for (uint32_t i = 0; i < g->n_nodes; i += length) {
        length = graph_run_length(g, i);
        if (s->timeline.updates < 0 && started > 0 && reads_gradient(g, &g->nodes[i]))
            s->timeline.updates = now;
        if (g->nodes[i].op == OP_ALL_REDUCE)
            add_sum(s, SUM_STATISTICS, (double)tensor_bytes(graph_desc(g, g->nodes[i].in[0])), now);
        else
            now += launch_floor(c, g, i, length);
        for (; started < p->n_buckets && p->buckets[started].last_node < i + length; started++)
            add_sum(s, SUM_BUCKET, (double)p->buckets[started].bytes * bytes_share, now);
    }
    if (!c->run.sync_bn) /* the running statistics, each rank's own, are averaged */
        add_sum(s, SUM_STATISTICS, statistics_bytes(g), now);
    return now;
}

static void scale_times(plan_step *s, const settings *c, double seconds)
{
    plan_timeline *t = &s->timeline;
    for (int i = 0; i < t->n_sums; i++)
        t->sums[i].at = share_of_step(c, t->sums[i].at / seconds);
    t->updates = share_of_step(c, t->updates < 0 ? 1 : t->updates / seconds);
    t->seconds = fused_share * seconds * (double)c->train.accumulate;
}

static void note_memory(plan_step *s, const memory_plan *plan, int32_t images)
{
    s->fixed_bytes =
        (double)(plan->arena_bytes[KIND_PARAMETER] + plan->arena_bytes[KIND_GRADIENT] + plan->arena_bytes[KIND_STATE]);
    s->image_bytes = (double)(plan->arena_bytes[KIND_ACTIVATION] + plan->arena_bytes[KIND_INPUT]) / images;
}

static int read_graph(plan_step *s, const settings *c, const plan_request *wanted, program *p)
{
    TRY(plan_make(&p->plan, &p->step));
    TRY(buckets_cut(p, &wanted->buckets));
    TRY(make_room(s, (size_t)p->step.n_nodes + p->n_buckets + 1));
    scale_times(s, c, place_sums(s, c, p, wanted->halved ? 0.5 : 1));
    note_memory(s, &p->plan, s->micro_batch);
    for (uint32_t i = 0; i < p->n_buckets; i++)
        s->gradient_bytes += (double)p->buckets[i].bytes * (wanted->halved ? 0.5 : 1);
    return 0;
}

/* As a GPU has it (kernels/cuda/lower/backend.c), but for what depends on its kernels. */
static backend_ops gpu_traits(const settings *c)
{
    backend_ops gpu = {.real = DTYPE_F32, .activation = DTYPE_F32, .pads_images = true};
    if (has_16_bits(c))
        gpu.activation = c->run.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F16;
    return gpu;
}

static int build_graph(plan_step *s, const settings *c, const plan_request *wanted, step_options *options)
{
    const backend_ops gpu = gpu_traits(c);
    const int32_t global = (int32_t)(s->micro_batch * wanted->gpus);
    const step_shape shape = {.training = true,
                              .sync_bn = c->run.sync_bn,
                              .batch = s->micro_batch,
                              .global_batch = global,
                              .loss_batch = global,
                              .place = c->train.accumulate > 1 ? MICRO_BATCH_LAST : MICRO_BATCH_WHOLE};
    program p = {.n_buckets = 0};
    model network;
    configure_for_device(options, &gpu);
    graph_init(&p.step, DTYPE_F32);
    int status = step_build_training(&p.step, &network, options, &shape);
    model_free(&network);
    if (status == 0)
        status = read_graph(s, c, wanted, &p);
    plan_free(&p.plan);
    graph_free(&p.step);
    free(p.buckets);
    return status;
}

/* What the data are, whoever computes on them. */
static int describe_data(plan_step *s, const settings *c, const plan_request *wanted, step_options *options)
{
    image_options images;
    TRY(configure(c, &images, options));
    CHECK(wanted->gpu_batch % c->train.accumulate == 0, ERROR_SETTINGS,
          "train.accumulate: %d images of a GPU do not divide into %lld micro-batches", wanted->gpu_batch,
          (long long)c->train.accumulate);
    s->micro_batch = (int32_t)(wanted->gpu_batch / c->train.accumulate);
    s->train_images = source_expected_images(images.source, SPLIT_TRAIN, c->data.train_images);
    s->decoded = images.source->side == SIZE_VARIES;
    s->image_pixel_bytes = s->decoded ? 0 : (double)images.sizes.last * images.sizes.last * IMAGE_CHANNELS;
    snprintf(s->network, sizeof s->network, "%s (%s)", c->model.network, options->model.teskd ? "teskd" : "plain");
    return 0;
}

int plan_step_build(plan_step *s, const settings *config, const plan_request *wanted)
{
    step_options options = {0};
    *s = (plan_step){.micro_batch = 0};
    int status = describe_data(s, config, wanted, &options);
    if (status == 0)
        status = build_graph(s, config, wanted, &options);
    if (status < 0)
        plan_step_free(s);
    return status;
}

void plan_step_free(plan_step *s)
{
    free(s->timeline.sums);
    s->timeline.sums = NULL;
}

/* ---- a list of layers ---- */

enum { LAYERS_MOST = 4096, LINE_BYTES = 256 };
static const double layer_most = 1e12; /* weights, and millions of multiply-adds: sums stay exact */

typedef struct {
    double weights, mmac;
} layer;

static int read_layer(const char *line, layer *out)
{
    char rest;
    const char *comma = strchr(line, ',');
    return comma && sscanf(comma, ",%lf,%lf %c", &out->weights, &out->mmac, &rest) == 2 && out->weights >= 0 &&
           out->mmac >= 0 && out->weights <= layer_most && out->mmac <= layer_most;
}

static int read_layers(FILE *file, const char *path, layer *layers, int *count)
{
    char line[LINE_BYTES];
    double work = 0;
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        if (line[0] == '#')
            continue;
        CHECK(*count < LAYERS_MOST, ERROR_DATA, "%s: more than %d layers", path, LAYERS_MOST);
        CHECK(read_layer(line, &layers[*count]), ERROR_DATA, "%s:%d: expected NAME,WEIGHTS,MMAC", path, number);
        work += layers[(*count)++].mmac;
    }
    CHECK(!ferror(file), ERROR_FILE, "%s: cannot be read", path);
    CHECK(work > 0, ERROR_DATA, "%s: lists no work", path);
    return 0;
}

/* The backward goes from the last layer to the first; gradients of a third of a layer's work each. */
static void place_layers(plan_step *s, const layer *layers, int count, const plan_request *wanted)
{
    double work = 0, now = 1.0 / 3, before = 0, bucket = 0, behind = 0;
    for (int i = 0; i < count; i++) {
        work += layers[i].mmac;
        behind += layers[i].weights * sizeof(float);
    }
    for (int i = count - 1; i >= 0; i--) {
        now += 2.0 / 3 * layers[i].mmac / work;
        bucket += layers[i].weights * sizeof(float);
        behind -= layers[i].weights * sizeof(float);
        if (bucket == 0 ||
            (behind > 0 && bucket < (double)bucket_enough(&wanted->buckets, (size_t)before, (size_t)behind)))
            continue;
        add_sum(s, SUM_BUCKET, wanted->halved ? bucket / 2 : bucket, fmin(now, 1));
        s->gradient_bytes += wanted->halved ? bucket / 2 : bucket;
        before += bucket;
        bucket = 0;
    }
    s->timeline.updates = 1;
}

int plan_step_read(plan_step *s, const settings *config, const plan_request *wanted, const char *path)
{
    step_options options = {0};
    int count = 0;
    *s = (plan_step){.micro_batch = 0};
    TRY(describe_data(s, config, wanted, &options));
    FILE *file = fopen(path, "r");
    CHECK(file, ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    layer *layers = calloc(LAYERS_MOST, sizeof *layers);
    int status = layers ? 0 : error_set(ERROR_MEMORY, "no memory for the layers of %s", path);
    if (status == 0)
        status = read_layers(file, path, layers, &count);
    fclose(file);
    if (status == 0)
        status = make_room(s, (size_t)count + 1);
    if (status == 0)
        place_layers(s, layers, count, wanted);
    free(layers);
    snprintf(s->network, sizeof s->network, "%s", path);
    return status;
}

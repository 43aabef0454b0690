/* Owns the order of the passes, and the sums of what is measured. One thread. */
#include "model/step.h"
#include "graph/fusion.h"
#include "graph/placement.h"

#include <stddef.h>

typedef struct {
    graph *g;
    value_id sums;
    double images; /* that a mean loss is a mean of */
} summing;

static void add(const summing *s, value_id value, size_t offset, double weight)
{
    op_attr attr = {.channel_offset = (int32_t)(offset / sizeof(double)), .weight = weight};
    if (value != VALUE_NONE && weight != 0)
        graph_apply(s->g, OP_METRIC_ADD, &attr, 2, (value_id[]){value, s->sums});
}

static void sum_head(const summing *s, const model *m, const model_options *o, int head)
{
    add(s, m->cross_entropy[head], offsetof(loss_sums, cross_entropy) + (size_t)head * sizeof(double), s->images);
    add(s, m->cross_entropy[head], offsetof(loss_sums, total), s->images * model_cross_entropy_weight(o, head));
    add(s, m->top_k[head], offsetof(loss_sums, right) + (size_t)head * 2 * sizeof(double), 1);
}

static void sum_student(const summing *s, const model *m, const model_options *o, int student)
{
    size_t at = (size_t)student * sizeof(double);
    add(s, m->kd[student], offsetof(loss_sums, kd) + at, s->images);
    add(s, m->kd[student], offsetof(loss_sums, total), s->images * o->kd_weight);
    add(s, m->feature[student], offsetof(loss_sums, feature) + at, 1);
    add(s, m->feature[student], offsetof(loss_sums, total), s->images * o->feature_weight);
}

static void sum_losses(graph *g, const model *m, const model_options *options, double images)
{
    tensor_desc desc = {.dim = {1, 1, 1, LOSS_SUMS}, .dtype = DTYPE_F64, .layout = LAYOUT_C, .kind = KIND_STATE};
    summing s = {g, graph_value_new(g, desc, LOSS_SUMS_STATE), images};
    graph_scope(g, "losses");
    for (int head = 0; head < HEADS; head++)
        sum_head(&s, m, options, head);
    for (int student = 0; student < STUDENTS; student++)
        sum_student(&s, m, options, student);
}

static void watch(graph *g, value_id value, size_t offset)
{
    op_attr attr = {.channel_offset = (int32_t)(offset / sizeof(double))};
    graph_scope(g, "losses");
    graph_apply(g, OP_METRIC_WATCH, &attr, 2, (value_id[]){value, graph_find(g, LOSS_SUMS_STATE)});
}

/* The total is the first of the sums. */
static void watch_losses(graph *g)
{
    watch(g, graph_find(g, LOSS_SUMS_STATE), offsetof(loss_sums, bad_runs));
}

/* With a loss scale, such steps are the scale's to count. */
static void watch_gradients(graph *g)
{
    value_id squares = graph_find(g, GRADIENT_SQUARES);
    if (squares != VALUE_NONE && graph_find(g, LOSS_SCALE_STATE) == VALUE_NONE)
        watch(g, squares, offsetof(loss_sums, bad_gradients));
}

/* The last passes: their nodes are for this device's kernels. */
static void fit_device(graph *g, const step_options *options)
{
    if (options->fuses)
        graph_fuse(g);
    if (options->placed_rows)
        graph_place_operands(g);
}

/* All passes in their order. */
int step_build_training(graph *g, model *m, const step_options *options, const step_shape *shape)
{
    model_build(m, g, &options->model, shape);
    sum_losses(g, m, &options->model, shape->loss_batch);
    watch_losses(g);
    graph_rewrite(g, options->rewrites);
    graph_backward(g, shape->sync_bn);
    graph_precision(g, &options->precision);
    graph_defer_updates(g);
    graph_accumulate(g, shape->place);
    if (shape->place == MICRO_BATCH_WHOLE || shape->place == MICRO_BATCH_LAST)
        graph_sgd(g, &options->sgd);
    watch_gradients(g);
    graph_drop_dead(g);
    fit_device(g, options);
    return graph_status(g);
}

int step_build_evaluation(graph *g, model *m, const step_options *options, int32_t batch, const step_input *input)
{
    const step_shape shape = {.batch = batch, .global_batch = batch, .loss_batch = batch, .input = *input};
    model_build(m, g, &options->model, &shape);
    sum_losses(g, m, &options->model, batch);
    graph_rewrite(g, options->rewrites);
    graph_precision(g, &options->precision);
    fit_device(g, options);
    return graph_status(g);
}

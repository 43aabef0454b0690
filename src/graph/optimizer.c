/* Owns the passes from gradients to updated parameters. One thread. */
#include "base/error.h"
#include "graph/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONG_NAME = GRAPH_NAME_BYTES + 16 };

static value_id gradient_of(const graph *g, value_id parameter)
{
    char name[LONG_NAME];
    snprintf(name, sizeof name, "gradient/%s", g->values[parameter].name);
    return graph_find(g, name);
}

/* A state of the same shape as the value, called PREFIX/<its name>. */
static value_id companion_state(graph *g, const char *prefix, value_id of)
{
    char name[LONG_NAME];
    const graph_value value = g->values[of];
    snprintf(name, sizeof name, "%s/%s", prefix, value.name);
    return graph_state(g, name, (tensor_layout)value.desc.layout, value.desc.dim);
}

/* What the gradients are multiplied by: undoes the loss scale, keeps their joint norm below clip_norm, is NaN where
 * they are to be withheld. VALUE_NONE when there is nothing of this. */
static value_id gradient_factor(graph *g, const sgd_options *options, uint32_t n_values)
{
    value_id sum = VALUE_NONE, scaling = graph_find(g, LOSS_SCALE_STATE);
    const bool clips = options->clip_norm > 0;
    if (!clips && scaling == VALUE_NONE && !options->withholds)
        return VALUE_NONE;
    graph_scope(g, "gradients");
    for (value_id id = 1; id < n_values; id++) {
        value_id gradient = graph_desc(g, id)->kind == KIND_PARAMETER ? gradient_of(g, id) : VALUE_NONE;
        if (gradient)
            sum = graph_apply(g, OP_SUM_SQUARES, NULL, sum ? 2 : 1, (value_id[]){gradient, sum});
    }
    if (options->withholds)
        graph_keep(g, sum, GRADIENT_SQUARES);
    const op_attr scales = {.max_norm = options->clip_norm},
                  bounds = {.max_norm = clips ? options->clip_norm : INFINITY};
    if (scaling)
        return graph_apply(g, OP_LOSS_SCALE, &scales, 2, (value_id[]){sum, scaling});
    return graph_apply(g, OP_CLIP_FACTOR, &bounds, 1, &sum);
}

static bool is_vector(const graph *g, value_id parameter)
{
    return graph_desc(g, parameter)->layout == LAYOUT_C;
}

/* All rates before the first update: they follow one another, and a device can make one launch of them. */
static void find_rates(graph *g, value_id lr, value_id factor, const sgd_options *options, uint32_t n_values)
{
    const op_attr attr = {.eta = options->lars_eta, .weight_decay = options->weight_decay};
    const tensor_desc number = {.dim = {1, 1, 1, 1}, .dtype = DTYPE_F64, .layout = LAYOUT_C, .kind = KIND_ACTIVATION};
    for (value_id id = 1; id < n_values && !g->status; id++) {
        value_id gradient = graph_desc(g, id)->kind == KIND_PARAMETER ? gradient_of(g, id) : VALUE_NONE;
        if (gradient == VALUE_NONE || is_vector(g, id))
            continue;
        char name[LONG_NAME];
        snprintf(name, sizeof name, "rate/%s", g->values[id].name);
        graph_scope(g, "%s", g->values[id].name);
        value_id rate = graph_value_new(g, number, name);
        graph_emit(g, OP_LARS_RATE, &attr, 4, (value_id[]){id, gradient, lr, factor}, 1, &rate);
    }
}

/* The parameter's own, or everyone's. */
static value_id rate_of(const graph *g, value_id parameter, value_id lr)
{
    char name[LONG_NAME];
    snprintf(name, sizeof name, "rate/%s", g->values[parameter].name);
    value_id rate = graph_find(g, name);
    return rate ? rate : lr;
}

static void update_parameter(graph *g, value_id parameter, value_id gradient, value_id lr, value_id factor,
                             const sgd_options *options)
{
    char copy[LONG_NAME];
    snprintf(copy, sizeof copy, "copy/%s", g->values[parameter].name);
    value_id momentum = companion_state(g, "momentum", parameter);
    value_id ema = options->ema_decay > 0 ? companion_state(g, "ema", parameter) : VALUE_NONE;
    op_attr attr = {.momentum = options->momentum,
                    .weight_decay = options->weight_decay,
                    .ema_decay = options->ema_decay,
                    .nesterov = options->nesterov,
                    .rate_first = options->lars_eta > 0,
                    .decay = options->decay_vectors || !is_vector(g, parameter)};
    graph_scope(g, "%s", g->values[parameter].name);
    graph_emit(g, OP_SGD_UPDATE, &attr, 7,
               (value_id[]){parameter, momentum, gradient, rate_of(g, parameter, lr), factor, graph_find(g, copy), ema},
               0, NULL);
}

static void follow(graph *g, value_id value, double decay)
{
    op_attr attr = {.momentum = decay};
    graph_scope(g, "ema");
    value_id ema = companion_state(g, "ema", value);
    graph_emit(g, OP_EMA_UPDATE, &attr, 2, (value_id[]){value, ema}, 0, NULL);
}

/* What no sgd_update changes: running statistics, and parameters whose losses all have weight 0. */
static void follow_the_rest(graph *g, double decay, uint32_t n_values)
{
    uint32_t n_nodes = g->n_nodes;
    for (value_id id = 1; id < n_values && !g->status; id++)
        if (graph_desc(g, id)->kind == KIND_PARAMETER && gradient_of(g, id) == VALUE_NONE)
            follow(g, id, decay);
    for (uint32_t i = 0; i < n_nodes && !g->status; i++) {
        const graph_node node = g->nodes[i]; /* a copy: emitting moves the array */
        for (int k = 1; k <= 2 && node.op == OP_BN_RUNNING; k++)
            follow(g, node.in[k], decay);
    }
}

void graph_sgd(graph *g, const sgd_options *options)
{
    value_id lr = graph_input(g, "lr", DTYPE_F64, (const int32_t[]){1, 1, 1, 1});
    uint32_t n_values = g->n_values;
    value_id factor = gradient_factor(g, options, n_values);
    if (options->lars_eta > 0)
        find_rates(g, lr, factor, options, n_values);
    for (value_id id = 1; id < n_values && !g->status; id++) {
        value_id gradient = graph_desc(g, id)->kind == KIND_PARAMETER ? gradient_of(g, id) : VALUE_NONE;
        if (gradient != VALUE_NONE)
            update_parameter(g, id, gradient, lr, factor, options);
    }
    if (options->ema_decay > 0)
        follow_the_rest(g, options->ema_decay, n_values);
}

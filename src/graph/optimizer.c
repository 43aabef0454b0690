/* Owns the pass that appends the optimiser. One thread. */
#include "base/error.h"
#include "graph/graph.h"

static void update_parameter(graph *g, value_id parameter, value_id lr, const sgd_options *options)
{
    char name[GRAPH_NAME_BYTES + 16];
    const graph_value of = g->values[parameter];
    snprintf(name, sizeof name, "gradient/%s", of.name);
    value_id gradient = graph_find(g, name);
    if (gradient == VALUE_NONE)
        return;
    snprintf(name, sizeof name, "momentum/%s", of.name);
    value_id momentum = graph_state(g, name, (tensor_layout)of.desc.layout, of.desc.dim);
    op_attr attr = {.momentum = options->momentum,
                    .weight_decay = options->weight_decay,
                    .nesterov = options->nesterov,
                    .decay = options->decay_vectors || of.desc.layout != LAYOUT_C};
    graph_scope(g, "%s", of.name);
    graph_emit(g, OP_SGD_UPDATE, &attr, 4, (value_id[]){parameter, momentum, gradient, lr}, 0, NULL);
}

void graph_sgd(graph *g, const sgd_options *options)
{
    value_id lr = graph_input(g, "lr", DTYPE_F64, (const int32_t[]){1, 1, 1, 1});
    uint32_t n_values = g->n_values;
    for (value_id id = 1; id < n_values && !g->status; id++)
        if (g->values[id].desc.kind == KIND_PARAMETER)
            update_parameter(g, id, lr, options);
}

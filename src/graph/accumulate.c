/* Owns the pass that adds up gradients over the micro-batches of a step. One thread. */
#include "graph/edit.h"

#include <string.h>

static const char gradient_prefix[] = "gradient/";

/* The state that gathers this gradient. */
static value_id accumulated_state(graph *g, value_id gradient)
{
    char name[GRAPH_NAME_BYTES + 16];
    const graph_value value = g->values[gradient];
    snprintf(name, sizeof name, "accumulated/%s", value.name + strlen(gradient_prefix));
    return graph_state(g, name, (tensor_layout)value.desc.layout, value.desc.dim);
}

/* After the node that wrote the gradient: it becomes an activation, and its sum with the state goes to the state or to
 * a new gradient. */
static void add_to_state(graph *g, value_id gradient, micro_batch_place place)
{
    const graph_value was = g->values[gradient];
    value_id state = accumulated_state(g, gradient), sum = state;
    g->values[gradient].desc.kind = KIND_ACTIVATION;
    g->values[gradient].name[0] = '\0';
    if (place == MICRO_BATCH_LAST)
        sum = graph_value_new(g, was.desc, was.name);
    graph_emit(g, OP_ADD, NULL, 2, (value_id[]){state, gradient}, 1, &sum);
}

static void direct_gradient(graph *g, value_id gradient, micro_batch_place place)
{
    if (place != MICRO_BATCH_FIRST) {
        add_to_state(g, gradient, place);
        return;
    }
    value_id state = accumulated_state(g, gradient);
    if (g->status)
        return;
    graph_node *writer = &g->nodes[g->n_nodes - 1];
    for (int k = 0; k < writer->n_out; k++)
        if (writer->out[k] == gradient)
            writer->out[k] = state;
    g->values[gradient].name[0] = '\0';
}

typedef struct {
    graph *g;
    micro_batch_place place;
} accumulation;

/* The node again and, after it, the sums of the gradients that it writes. */
static void emit_node(void *context, graph_node *node)
{
    const accumulation *a = context;
    graph_emit(a->g, (op_id)node->op, &node->attr, node->n_in, node->in, node->n_out, node->out);
    for (int k = 0; k < node->n_out; k++)
        if (graph_desc(a->g, node->out[k])->kind == KIND_GRADIENT)
            direct_gradient(a->g, node->out[k], a->place);
}

void graph_accumulate(graph *g, micro_batch_place place)
{
    accumulation a = {.g = g, .place = place};
    if (!g->status && place != MICRO_BATCH_WHOLE)
        graph_rebuild(g, emit_node, &a);
}

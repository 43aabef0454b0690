/* Owns the reverse walk that turns losses into gradients of parameters.
 * Invariant: when a node is visited, every term of its outputs' gradients has been emitted. One thread. */
#include "base/error.h"
#include "graph/backward.h"

#include <stdlib.h>
#include <string.h>

struct contribution {
    int count;
    value_id term[CONTRIBUTIONS_MAX];
};

bool backward_wants(const backward *b, value_id value)
{
    return b->wanted[value];
}

int backward_terms(const backward *b, value_id value, value_id terms[CONTRIBUTIONS_MAX])
{
    memcpy(terms, b->lists[value].term, sizeof b->lists[value].term);
    return b->lists[value].count;
}

void backward_give(backward *b, value_id value, value_id term)
{
    struct contribution *list = &b->lists[value];
    if (list->count == CONTRIBUTIONS_MAX)
        graph_fail(b->g, ERROR_INTERNAL, "%s: a value with more than %d readers", b->g->scope, CONTRIBUTIONS_MAX);
    else
        list->term[list->count++] = term;
}

value_id backward_give_new(backward *b, value_id value)
{
    const graph_value *of = &b->g->values[value];
    tensor_desc desc = of->desc;
    char name[GRAPH_NAME_BYTES + 16] = "";
    desc.kind = KIND_ACTIVATION;
    if (of->desc.kind == KIND_PARAMETER) {
        if (b->lists[value].count)
            graph_fail(b->g, ERROR_INTERNAL, "the parameter %s is used twice", of->name);
        desc.kind = KIND_GRADIENT;
        if (snprintf(name, sizeof name, "gradient/%s", of->name) >= GRAPH_NAME_BYTES)
            graph_fail(b->g, ERROR_INTERNAL, "the name \"%s\" is too long", name);
    }
    value_id gradient = graph_value_new(b->g, desc, name);
    backward_give(b, value, gradient);
    return gradient;
}

value_id backward_take(backward *b, value_id value)
{
    struct contribution *list = &b->lists[value];
    if (list->count > 1) {
        list->term[0] = graph_apply(b->g, OP_ADD, NULL, list->count, list->term);
        list->count = 1;
    }
    return list->term[0];
}

/* A value's gradient is wanted when a parameter lies before it. */
static void mark_wanted(backward *b, uint32_t forward_nodes)
{
    const graph *g = b->g;
    for (value_id id = 1; id < g->n_values; id++)
        b->wanted[id] = g->values[id].desc.kind == KIND_PARAMETER;
    for (uint32_t i = 0; i < forward_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < node->n_in; k++)
            any |= b->wanted[node->in[k]];
        for (int k = 0; k < node->n_out; k++)
            b->wanted[node->out[k]] = any;
    }
}

static bool is_active(const backward *b, const graph_node *node)
{
    if (op_has(node->op, TRAIT_LOSS))
        return node->attr.weight > 0;
    return node->n_out > 0 && b->lists[node->out[0]].count > 0;
}

/* What only shifts a running mean reaches no loss: its gradient is 0, which weight decay still acts on. */
static void give_zeros(backward *b, uint32_t forward_nodes)
{
    enum { SHIFT = 3 };
    for (uint32_t i = 0; i < forward_nodes && !b->g->status; i++) {
        const graph_node node = b->g->nodes[i]; /* a copy: emitting moves the array */
        if (node.op != OP_BN_RUNNING || node.n_in <= SHIFT)
            continue;
        graph_scope(b->g, "%s", node.label);
        value_id zero = backward_give_new(b, node.in[SHIFT]);
        graph_emit(b->g, OP_ZERO, NULL, 1, &node.in[SHIFT], 1, &zero);
    }
}

void graph_backward(graph *g, bool sync_bn)
{
    if (g->status)
        return;
    backward b = {.g = g, .sync_bn = sync_bn};
    uint32_t forward_nodes = g->n_nodes, forward_values = g->n_values;
    b.wanted = calloc(forward_values, sizeof *b.wanted);
    b.lists = calloc(forward_values, sizeof *b.lists);
    if (!b.wanted || !b.lists)
        graph_fail(g, ERROR_MEMORY, "no memory for the backward of %u values", forward_values);
    else
        mark_wanted(&b, forward_nodes);
    for (uint32_t i = forward_nodes; i-- > 0 && !g->status;) {
        const graph_node node = g->nodes[i]; /* a copy: emitting moves the array */
        graph_scope(g, "%s", node.label);
        if (is_active(&b, &node))
            op_table_row((op_id)node.op)->gradient(&b, &node);
    }
    give_zeros(&b, forward_nodes);
    graph_scope(g, "%s", "");
    free(b.wanted);
    free(b.lists);
}

/* Owns the pass that places values in others. Invariant: a part of a whole is only touched by ops that heed its
 * row_stride and its patch. One thread. */
#include "graph/placement.h"

#include <string.h>

/* ---- side by side ---- */

/* Does the op write output `index` with a stride? */
static bool writes_rows(unsigned op, int index)
{
    switch (op) {
    case OP_BN_NORMALIZE:
    case OP_BN_INFERENCE:
    case OP_UPSAMPLE_BN:
    case OP_UPSAMPLE_BN_INFERENCE:
    case OP_LINEAR_BN:
        return index == 0;
    default:
        return op == OP_CONCAT_LINEAR_DGRAD;
    }
}

/* Does the op read input `index` with a stride? */
static bool reads_rows(unsigned op, int index)
{
    enum { FIRST_GRADIENT = 5 };
    switch (op) {
    case OP_CONCAT_LINEAR:
    case OP_CONCAT_LINEAR_WGRAD:
    case OP_RELU_GRAD:
        return index < 2;
    case OP_BN_GRAD_SUMS:
    case OP_BN_GRAD:
        return index >= FIRST_GRADIENT;
    case OP_UPSAMPLE_BN_GRAD_SUMS:
        return index == 4;
    default:
        return false;
    }
}

/* A feature map of the step that nobody outside it sees, written and read by the right ops alone. */
static bool can_be_part(const graph *g, value_id value)
{
    bool written = false;
    if (value == VALUE_NONE || g->values[value].keep || g->values[value].whole ||
        graph_desc(g, value)->kind != KIND_ACTIVATION)
        return false;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] == value && !reads_rows(node->op, k))
                return false;
        for (int k = 0; k < node->n_out; k++)
            if (node->out[k] == value && !writes_rows(node->op, k))
                return false;
        for (int k = 0; k < node->n_out; k++)
            written = written || node->out[k] == value;
    }
    return written;
}

static void place(graph *g, value_id part, value_id whole, int32_t channel)
{
    graph_value *value = &g->values[part];
    value->whole = whole;
    value->whole_channel = channel;
    value->desc.row_stride = graph_desc(g, whole)->dim[3];
}

static void pair(graph *g, value_id a, value_id b)
{
    if (a == b || !can_be_part(g, a) || !can_be_part(g, b))
        return;
    tensor_desc desc = *graph_desc(g, a);
    int32_t first = desc.dim[3];
    desc.dim[3] += graph_desc(g, b)->dim[3];
    value_id whole = graph_value_new(g, desc, NULL);
    if (g->status)
        return;
    place(g, a, whole, 0);
    place(g, b, whole, first);
}

/* ---- patches ---- */

/* Does the op write output `index` in patch order, or read input `index` so? */
static bool writes_patches(unsigned op, int index)
{
    return op_has(op, TRAIT_PATCHED_OUT) && index == 0;
}

static bool reads_patches(unsigned op, int index)
{
    enum { FIRST_GRADIENT = 5 };
    return op_has(op, TRAIT_PATCHED_GRADIENTS) && index >= FIRST_GRADIENT;
}

/* A feature map of the step whose other end is ops that can do with patch order: `moved` is the node that goes away. */
static bool can_be_patches(const graph *g, value_id map, const graph_node *moved)
{
    int32_t size = moved->attr.kernel;
    if (g->values[map].keep || g->values[map].whole || graph_desc(g, map)->kind != KIND_ACTIVATION ||
        (size & (size - 1)) != 0)
        return false;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        for (int k = 0; k < node->n_in && node != moved; k++)
            if (node->in[k] == map && !reads_patches(node->op, k))
                return false;
        for (int k = 0; k < node->n_out && node != moved; k++)
            if (node->out[k] == map && !writes_patches(node->op, k))
                return false;
    }
    return true;
}

static void drop_node(graph *g, uint32_t index)
{
    uint32_t after = --g->n_nodes - index;
    memmove(&g->nodes[index], &g->nodes[index + 1], after * sizeof *g->nodes);
}

/* Returns true when the node went away. */
static bool place_patches(graph *g, uint32_t index)
{
    const graph_node *node = &g->nodes[index];
    bool cuts = node->op == OP_PATCHIFY;
    if (!cuts && node->op != OP_UNPATCHIFY)
        return false;
    value_id map = cuts ? node->in[0] : node->out[0], patches = cuts ? node->out[0] : node->in[0];
    if (g->values[patches].whole || !can_be_patches(g, map, node))
        return false;
    g->values[map].whole = patches;
    g->values[map].desc.patch = node->attr.kernel;
    drop_node(g, index);
    return true;
}

void graph_place_operands(graph *g)
{
    for (uint32_t i = 0; i < g->n_nodes && !g->status; i++) {
        const graph_node *node = &g->nodes[i];
        if (node->op == OP_CONCAT_LINEAR)
            pair(g, node->in[0], node->in[1]);
        else if (node->op == OP_CONCAT_LINEAR_DGRAD)
            pair(g, node->out[0], node->out[1]);
    }
    for (uint32_t i = 0; i < g->n_nodes && !g->status;)
        i += !place_patches(g, i);
}

/* Owns the arrays of a graph. Invariant: n_values >= 1 (values[0] stands for "none"), ids in nodes are valid.
 * Threads: one at a time. */
#include "graph/graph.h"
#include "base/error.h"
#include "graph/op_table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void graph_init(graph *g, dtype real)
{
    memset(g, 0, sizeof *g);
    g->real = real;
    graph_value_new(g, (tensor_desc){0}, NULL);
}

void graph_free(graph *g)
{
    free(g->values);
    free(g->nodes);
    memset(g, 0, sizeof *g);
}

int graph_status(const graph *g)
{
    return g->status ? error_set(g->status, "%s", g->failure) : 0;
}

void graph_fail(graph *g, int code, const char *format, ...)
{
    if (g->status)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(g->failure, sizeof g->failure, format, args);
    va_end(args);
    g->status = code;
}

void graph_scope(graph *g, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(g->scope, sizeof g->scope, format, args);
    va_end(args);
}

/* The array with room for `capacity` elements; NULL (and the old one still valid) when there is no memory. */
static void *grown(graph *g, void *array, uint32_t capacity, size_t element)
{
    void *larger = realloc(array, capacity * element);
    if (!larger)
        graph_fail(g, ERROR_MEMORY, "no memory for a graph of %u entries", capacity);
    return larger;
}

static bool reserve_value(graph *g)
{
    if (g->n_values < g->values_capacity)
        return true;
    uint32_t capacity = g->values_capacity ? 2 * g->values_capacity : 256;
    graph_value *values = grown(g, g->values, capacity, sizeof *values);
    if (!values)
        return false;
    g->values = values;
    g->values_capacity = capacity;
    return true;
}

static bool reserve_node(graph *g)
{
    if (g->n_nodes < g->nodes_capacity)
        return true;
    uint32_t capacity = g->nodes_capacity ? 2 * g->nodes_capacity : 256;
    graph_node *nodes = grown(g, g->nodes, capacity, sizeof *nodes);
    if (!nodes)
        return false;
    g->nodes = nodes;
    g->nodes_capacity = capacity;
    return true;
}

value_id graph_value_new(graph *g, tensor_desc desc, const char *name)
{
    if (g->status || !reserve_value(g))
        return VALUE_NONE;
    graph_value *value = &g->values[g->n_values];
    *value = (graph_value){.desc = desc};
    if (name)
        snprintf(value->name, sizeof value->name, "%s", name);
    return g->n_values++;
}

static value_id named_value(graph *g, const char *name, value_kind kind, uint8_t type, tensor_layout layout,
                            const int32_t dim[4])
{
    if (strlen(name) >= GRAPH_NAME_BYTES)
        graph_fail(g, ERROR_INTERNAL, "the name \"%s\" is too long", name);
    if (graph_find(g, name) != VALUE_NONE)
        graph_fail(g, ERROR_INTERNAL, "two values are called \"%s\"", name);
    tensor_desc desc = {
        .dim = {dim[0], dim[1], dim[2], dim[3]}, .dtype = type, .layout = (uint8_t)layout, .kind = (uint8_t)kind};
    return graph_value_new(g, desc, name);
}

value_id graph_input(graph *g, const char *name, uint8_t type, const int32_t dim[4])
{
    return named_value(g, name, KIND_INPUT, type, LAYOUT_NHWC, dim);
}

value_id graph_parameter(graph *g, const char *name, tensor_layout layout, const int32_t dim[4])
{
    return named_value(g, name, KIND_PARAMETER, (uint8_t)g->real, layout, dim);
}

value_id graph_state(graph *g, const char *name, tensor_layout layout, const int32_t dim[4])
{
    return named_value(g, name, KIND_STATE, (uint8_t)g->real, layout, dim);
}

void graph_emit(graph *g, op_id op, const op_attr *attr, int n_in, const value_id *in, int n_out, const value_id *out)
{
    const op_row *row = op_table_row(op);
    while (n_in > row->min_in && in[n_in - 1] == VALUE_NONE)
        n_in--;
    if (n_in < row->min_in || n_in > row->max_in || n_out > row->max_out)
        graph_fail(g, ERROR_INTERNAL, "%s: %s with %d inputs and %d outputs", g->scope, row->name, n_in, n_out);
    if (g->status || !reserve_node(g))
        return;
    graph_node *node = &g->nodes[g->n_nodes];
    *node = (graph_node){.op = (uint16_t)op, .n_in = (uint8_t)n_in, .n_out = (uint8_t)n_out};
    memcpy(node->in, in, (size_t)n_in * sizeof *in);
    if (n_out)
        memcpy(node->out, out, (size_t)n_out * sizeof *out);
    if (attr)
        node->attr = *attr;
    memcpy(node->label, g->scope, sizeof node->label);
    g->n_nodes++;
}

value_id graph_apply(graph *g, op_id op, const op_attr *attr, int n_in, const value_id *in)
{
    const op_row *row = op_table_row(op);
    graph_node node = {.op = (uint16_t)op, .n_in = (uint8_t)n_in};
    if (g->status)
        return VALUE_NONE;
    memcpy(node.in, in, (size_t)n_in * sizeof *in);
    if (attr)
        node.attr = *attr;
    tensor_desc desc = {.dtype = (uint8_t)g->real, .layout = LAYOUT_NHWC, .kind = KIND_ACTIVATION};
    int status = row->shape(g, &node, &desc);
    if (status < 0) {
        graph_fail(g, status, "%s: %s", g->scope, error_message());
        return VALUE_NONE;
    }
    value_id out = row->max_out ? graph_value_new(g, desc, NULL) : VALUE_NONE;
    graph_emit(g, op, attr, n_in, in, row->max_out ? 1 : 0, &out);
    return out;
}

void graph_keep(graph *g, value_id value, const char *name)
{
    if (g->status)
        return;
    graph_value *kept = &g->values[value];
    kept->keep = true;
    snprintf(kept->name, sizeof kept->name, "%s", name);
}

value_id graph_find(const graph *g, const char *name)
{
    for (value_id id = 1; id < g->n_values; id++)
        if (strcmp(g->values[id].name, name) == 0)
            return id;
    return VALUE_NONE;
}

const tensor_desc *graph_desc(const graph *g, value_id value)
{
    return &g->values[value].desc;
}

uint32_t graph_count_uses(const graph *g, value_id value)
{
    uint32_t uses = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            uses += g->nodes[i].in[k] == value;
    return uses;
}

double graph_node_macs(const graph *g, const graph_node *node)
{
    const tensor_desc *in0 = graph_desc(g, node->in[0]), *in1 = graph_desc(g, node->in[1]);
    const tensor_desc *out = graph_desc(g, node->out[0]);
    switch ((op_id)node->op) {
    case OP_CONV2D:
    case OP_LINEAR:
    case OP_LINEAR_BN: /* each output element is a dot product with one row of the weight */
        return (double)tensor_count(out) * (double)tensor_count(in1) / in1->dim[0];
    case OP_CONCAT_LINEAR:
        return (double)tensor_count(out) * graph_desc(g, node->in[2])->dim[3];
    case OP_CONV2D_DGRAD:
    case OP_LINEAR_DGRAD:
    case OP_CONCAT_LINEAR_DGRAD:
        return (double)tensor_count(in0) * (double)tensor_count(in1) / in1->dim[0];
    case OP_CONV2D_WGRAD:
    case OP_LINEAR_WGRAD:
        return (double)tensor_count(in1) * (double)tensor_count(out) / out->dim[0];
    case OP_CONCAT_LINEAR_WGRAD:
        return (double)tensor_count(graph_desc(g, node->in[2])) * out->dim[3];
    case OP_CHANNEL_MOMENTS:
        return (double)tensor_count(in0) * in0->dim[3];
    case OP_LINEAR_BN_DGRAD: /* from g and from x */
        return (double)tensor_count(out) * (in0->dim[3] + in1->dim[3]);
    default:
        return 0;
    }
}

/* Owns the pass to mixed precision. Invariant: a product's operands are of one dtype. One thread. */
#include "graph/precision.h"
#include "base/error.h"
#include "graph/edit.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    graph *g;
    dtype activation;
    value_id scaling;      /* VALUE_NONE without loss scaling */
    value_id *converted;   /* by value: itself in the dtype of activations, once there is such a value */
    uint32_t known_values; /* before the pass */
} lowering;

static bool is_bias(const graph_node *node, int index)
{
    return (node->op == OP_CONV2D || node->op == OP_LINEAR) && index == 2;
}

/* Gradients of parameters, and ops that give back what they are given, keep float32. */
static bool keeps_real(const graph *g, const graph_node *node)
{
    bool is_given_real = graph_desc(g, node->in[0])->dtype == g->real;
    return op_has(node->op, TRAIT_REAL) || (op_has(node->op, TRAIT_AS_GIVEN) && is_given_real);
}

static value_id copy_of_parameter(lowering *l, value_id parameter)
{
    char name[GRAPH_NAME_BYTES + 8];
    const graph_value original = l->g->values[parameter];
    tensor_desc desc = original.desc;
    desc.dtype = (uint8_t)l->activation;
    desc.kind = KIND_STATE;
    if (snprintf(name, sizeof name, "copy/%s", original.name) >= GRAPH_NAME_BYTES)
        graph_fail(l->g, ERROR_INTERNAL, "the name \"%s\" is too long", name);
    return graph_value_new(l->g, desc, name);
}

static value_id convert(lowering *l, value_id value)
{
    tensor_desc desc = *graph_desc(l->g, value);
    desc.dtype = (uint8_t)l->activation;
    desc.kind = KIND_ACTIVATION;
    value_id result = graph_value_new(l->g, desc, NULL);
    graph_emit(l->g, OP_CONVERT, NULL, 1, &value, 1, &result);
    return result;
}

static value_id as_activation(lowering *l, value_id value)
{
    if (value == VALUE_NONE || value >= l->known_values || graph_desc(l->g, value)->dtype != l->g->real)
        return value;
    if (l->converted[value] == VALUE_NONE)
        l->converted[value] =
            graph_desc(l->g, value)->kind == KIND_PARAMETER ? copy_of_parameter(l, value) : convert(l, value);
    return l->converted[value];
}

/* The node again, with conversions before it where it needs them. */
static void lower_node(void *context, graph_node *node)
{
    lowering *l = context;
    graph *g = l->g;
    for (int k = 0; k < node->n_in && op_has(node->op, TRAIT_PRODUCT); k++)
        if (!is_bias(node, k))
            node->in[k] = as_activation(l, node->in[k]);
    bool keeps = keeps_real(g, node);
    for (int k = 0; k < node->n_out && !keeps; k++) {
        tensor_desc *desc = &g->values[node->out[k]].desc;
        if (node->out[k] != VALUE_NONE && desc->kind == KIND_ACTIVATION && desc->dtype == g->real)
            desc->dtype = (uint8_t)l->activation;
    }
    int n_in = node->n_in;
    if (op_has(node->op, TRAIT_LOSS_GRADIENT) && l->scaling)
        node->in[n_in++] = l->scaling;
    graph_emit(g, (op_id)node->op, &node->attr, n_in, node->in, node->n_out, node->out);
}

void graph_precision(graph *g, const precision_options *options)
{
    bool narrow = options->activation == DTYPE_F16 || options->activation == DTYPE_BF16;
    if (g->status || !narrow)
        return;
    lowering l = {.g = g, .activation = options->activation, .known_values = g->n_values};
    l.converted = calloc(g->n_values, sizeof *l.converted);
    if (!l.converted) {
        graph_fail(g, ERROR_MEMORY, "no memory to lower %u values", g->n_values);
        return;
    }
    if (options->loss_scaling)
        l.scaling = graph_state(g, LOSS_SCALE_STATE, LAYOUT_C, (const int32_t[]){1, 1, 1, SCALING_NUMBERS});
    graph_rebuild(g, lower_node, &l);
    free(l.converted);
}

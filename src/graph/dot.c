/* Owns the Graphviz text of a graph. One thread. */
#include "graph/graph.h"

static void dot_value(const graph *g, value_id id, FILE *out)
{
    const graph_value *v = &g->values[id];
    const int32_t *d = v->desc.dim;
    static const char *const colors[KIND_COUNT] = {[KIND_INPUT] = "lightblue",
                                                   [KIND_PARAMETER] = "khaki",
                                                   [KIND_GRADIENT] = "salmon",
                                                   [KIND_STATE] = "palegreen",
                                                   [KIND_ACTIVATION] = "white"};
    fprintf(out, "  v%u [shape=box, style=filled, fillcolor=%s, label=\"%s%s%dx%dx%dx%d %s\"];\n", id,
            colors[v->desc.kind], v->name, v->name[0] ? "\\n" : "", d[0], d[1], d[2], d[3], dtype_name(v->desc.dtype));
}

void graph_dot(const graph *g, FILE *out)
{
    fprintf(out, "digraph step {\n  rankdir=TB;\n  node [fontsize=10];\n");
    for (value_id id = 1; id < g->n_values; id++) {
        bool written = false;
        for (uint32_t i = 0; i < g->n_nodes && !written; i++)
            for (int k = 0; k < g->nodes[i].n_out; k++)
                written |= g->nodes[i].out[k] == id;
        if (written || graph_count_uses(g, id))
            dot_value(g, id, out);
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        fprintf(out, "  n%u [shape=ellipse, label=\"%s\\n%s\"];\n", i, op_name((op_id)node->op), node->label);
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] != VALUE_NONE)
                fprintf(out, "  v%u -> n%u;\n", node->in[k], i);
        for (int k = 0; k < node->n_out; k++)
            if (node->out[k] != VALUE_NONE)
                fprintf(out, "  n%u -> v%u;\n", i, node->out[k]);
    }
    fprintf(out, "}\n");
}

/* Owns dead-code elimination: the exported model is what remains when only the teacher's logits are kept. */
#include "base/error.h"
#include "graph/edit.h"

#include <stdlib.h>

static bool is_live(const graph *g, const graph_node *node, const bool *read)
{
    if (node->n_out == 0)
        return true;
    for (int k = 0; k < node->n_out; k++) {
        value_id out = node->out[k];
        if (out == VALUE_NONE)
            continue;
        uint8_t kind = g->values[out].desc.kind;
        if (read[out] || g->values[out].keep || kind == KIND_GRADIENT || kind == KIND_STATE)
            return true;
    }
    return false;
}

void graph_drop_dead(graph *g)
{
    if (g->status)
        return;
    bool *read = calloc(g->n_values, sizeof *read);
    bool *live = calloc(g->n_nodes + 1, sizeof *live);
    if (!read || !live) {
        graph_fail(g, ERROR_MEMORY, "no memory to look for dead code");
        goto out;
    }
    for (uint32_t i = g->n_nodes; i-- > 0;) {
        live[i] = is_live(g, &g->nodes[i], read);
        for (int k = 0; live[i] && k < g->nodes[i].n_in; k++)
            read[g->nodes[i].in[k]] = true;
    }
    graph_keep_nodes(g, live);
out:
    free(read);
    free(live);
}

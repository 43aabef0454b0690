/* Owns the order of updates that no node of the step reads, and which nodes may be one launch. One thread. */
#include "base/error.h"
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

void graph_defer_updates(graph *g)
{
    graph_node *deferred = g->status ? NULL : malloc((g->n_nodes + 1) * sizeof *deferred);
    uint32_t n_deferred = 0, kept = 0;
    if (!deferred) {
        graph_fail(g, ERROR_MEMORY, "no memory to order %u nodes", g->n_nodes);
        return;
    }
    for (uint32_t i = 0; i < g->n_nodes; i++)
        *(op_has(g->nodes[i].op, TRAIT_DEFERRED) ? &deferred[n_deferred++] : &g->nodes[kept++]) = g->nodes[i];
    memcpy(g->nodes + kept, deferred, n_deferred * sizeof *deferred);
    free(deferred);
}

/* Does the node read what one of nodes [first, node) writes? */
static bool reads_run(const graph *g, uint32_t first, uint32_t node)
{
    const graph_node *reader = &g->nodes[node];
    for (uint32_t i = first; i < node; i++)
        for (int out = 0; out < g->nodes[i].n_out; out++)
            for (int in = 0; in < reader->n_in; in++)
                if (reader->in[in] != VALUE_NONE && reader->in[in] == g->nodes[i].out[out])
                    return true;
    return false;
}

uint32_t graph_run_length(const graph *g, uint32_t first)
{
    unsigned op = g->nodes[first].op;
    uint32_t end = first + 1;
    if (op_is_loss(op))
        while (end < g->n_nodes && op_is_loss(g->nodes[end].op) && !reads_run(g, first, end))
            end++;
    else
        while (end < g->n_nodes && g->nodes[end].op == op)
            end++;
    return end - first;
}

/* Moves nodes. Invariant: their order is kept, but for what the caller asks for. Holds no state. */
#include "graph/edit.h"

#include <stdlib.h>
#include <string.h>

void graph_keep_nodes(graph *g, const bool *kept)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (kept[i])
            g->nodes[n++] = g->nodes[i];
    g->n_nodes = n;
}

void graph_rebuild(graph *g, void (*emit)(void *context, graph_node *node), void *context)
{
    graph_node *nodes = g->nodes;
    const uint32_t n_nodes = g->n_nodes;
    g->nodes = NULL;
    g->n_nodes = g->nodes_capacity = 0;
    for (uint32_t i = 0; i < n_nodes && !g->status; i++) {
        graph_scope(g, "%s", nodes[i].label);
        emit(context, &nodes[i]);
    }
    graph_scope(g, "%s", "");
    free(nodes);
}

void graph_move_last(graph *g, uint32_t index)
{
    const uint32_t last = g->n_nodes - 1;
    const graph_node node = g->nodes[last];
    memmove(&g->nodes[index + 1], &g->nodes[index], (last - index) * sizeof *g->nodes);
    g->nodes[index] = node;
}

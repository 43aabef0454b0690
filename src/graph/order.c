/* Owns the order of updates that nobody in the step waits for. One thread. */
#include "base/error.h"
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

void graph_defer_running(graph *g)
{
    if (g->status)
        return;
    graph_node *deferred = malloc((g->n_nodes + 1) * sizeof *deferred);
    char(*labels)[GRAPH_NAME_BYTES] = malloc((g->n_nodes + 1) * sizeof *labels);
    uint32_t n_deferred = 0, kept = 0;
    if (!deferred || !labels) {
        graph_fail(g, ERROR_MEMORY, "no memory to order %u nodes", g->n_nodes);
        goto out;
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        bool defer = g->nodes[i].op == OP_BN_RUNNING;
        uint32_t to = defer ? n_deferred++ : kept++;
        memmove(defer ? labels[to] : g->labels[to], g->labels[i], sizeof *labels);
        (defer ? deferred : g->nodes)[to] = g->nodes[i];
    }
    memcpy(g->nodes + kept, deferred, n_deferred * sizeof *deferred);
    memcpy(g->labels + kept, labels, n_deferred * sizeof *labels);
out:
    free(deferred);
    free(labels);
}

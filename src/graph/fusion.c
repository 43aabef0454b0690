/* Owns the passes that make one node of two. Invariant: a fused node writes the values that the two wrote. One thread.
 */
#include "graph/fusion.h"

#include <string.h>

/* The convolution without bias that writes the value and no sums yet; else NULL. */
static graph_node *convolution_of(graph *g, value_id value, uint32_t before)
{
    for (uint32_t i = 0; i < before; i++) {
        graph_node *node = &g->nodes[i];
        if (node->op == OP_CONV2D && node->out[0] == value)
            return node->n_in == 2 && node->n_out == 1 ? node : NULL;
    }
    return NULL;
}

void graph_fuse_sums(graph *g)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_nodes && !g->status; i++) {
        const graph_node node = g->nodes[i];
        graph_node *convolution = node.op == OP_BN_SUMS ? convolution_of(g, node.in[0], kept) : NULL;
        if (convolution) {
            convolution->out[convolution->n_out++] = node.out[0];
            continue;
        }
        g->nodes[kept] = node;
        memmove(g->labels[kept], g->labels[i], sizeof g->labels[i]);
        kept++;
    }
    if (!g->status)
        g->n_nodes = kept;
}

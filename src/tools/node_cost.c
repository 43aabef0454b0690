/* Owns the cost of a node. Holds no state; any thread. */
#include "tools/node_cost.h"

#include <math.h>

double node_bytes(const graph *g, const graph_node *node)
{
    double bytes = 0;
    for (int k = 0; k < node->n_in; k++)
        bytes += (double)tensor_bytes(graph_desc(g, node->in[k]));
    for (int k = 0; k < node->n_out; k++)
        bytes += (double)tensor_bytes(graph_desc(g, node->out[k]));
    return bytes;
}

double node_floor(const graph *g, const graph_node *node, const device_rates *rates)
{
    return fmax(2 * graph_node_macs(g, node) / rates->flops, node_bytes(g, node) / rates->bytes);
}

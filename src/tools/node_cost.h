/* What a node of a step costs at least. */
#ifndef TESKD_TOOLS_NODE_COST_H
#define TESKD_TOOLS_NODE_COST_H

#include "graph/graph.h"

/* What a device does at best. */
typedef struct {
    double flops, bytes; /* per second */
} device_rates;

/* Bytes of each of its inputs and results, once. */
double node_bytes(const graph *g, const graph_node *node);

/* Seconds of its arithmetic or of its bytes alone, whichever are more. */
double node_floor(const graph *g, const graph_node *node, const device_rates *rates);

#endif

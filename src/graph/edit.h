/* Changes of a graph's list of nodes, for passes. One thread. */
#ifndef TESKD_GRAPH_EDIT_H
#define TESKD_GRAPH_EDIT_H

#include "graph/graph.h"

/* Leaves the nodes for which `kept`, an array of n_nodes, is true. */
void graph_keep_nodes(graph *g, const bool *kept);

/* Makes the list anew: `emit` is called with each node in turn, its label as scope, and emits what is to be there in
 * its place. The node is the callee's to change. */
void graph_rebuild(graph *g, void (*emit)(void *context, graph_node *node), void *context);

/* Puts the last node, which was just emitted, before node `index`. */
void graph_move_last(graph *g, uint32_t index);

#endif

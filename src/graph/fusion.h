/* Nodes made one: for devices that have a kernel for both. */
#ifndef TESKD_GRAPH_FUSION_H
#define TESKD_GRAPH_FUSION_H

#include "graph/graph.h"

/* Lets a convolution without bias give the sums that batch normalisation takes of its result, in the place of a
 * bn_sums. After the backward is derived. */
void graph_fuse_sums(graph *g);

#endif

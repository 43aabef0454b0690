/* Results on the way: for devices whose kernels can give them. */
#ifndef TESKD_GRAPH_FUSION_H
#define TESKD_GRAPH_FUSION_H

#include "graph/graph.h"

/* Lets a convolution without bias, or a concat_linear, give the sums that batch normalisation takes of its result, in
 * the place of a bn_sums; the sums of batch normalisation's gradient the gradients of its parameters, in the place of a
 * bn_param_grad; and a max_pool the choices that its gradient then reads, instead of the feature map. After the
 * backward is derived. */
void graph_fuse(graph *g);

#endif

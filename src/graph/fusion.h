/* Fusion: a kernel gives a second result, on devices whose kernels can. */
#ifndef TESKD_GRAPH_FUSION_H
#define TESKD_GRAPH_FUSION_H

#include "graph/graph.h"

/* A convolution without bias, or a concat_linear, also gives the sums that batch normalisation takes of its result: no
 * bn_sums. The sums of batch normalisation's gradient also give the gradients of its parameters: no bn_param_grad. A
 * max_pool also gives the choices, which its gradient then reads instead of the feature map. After the backward is
 * derived. */
void graph_fuse(graph *g);

#endif

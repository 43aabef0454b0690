/* Mixed precision: activations and what products read in 16 bits; parameters, their gradients, statistics and sums as
 * they were. */
#ifndef TESKD_GRAPH_PRECISION_H
#define TESKD_GRAPH_PRECISION_H

#include "graph/graph.h"

/* Where `activation` has 16 bits (the graph's reals are float32 then; else nothing happens):
 *  - activations get that dtype, except the gradients of parameters and what is computed from parameters alone;
 *  - convolutions and matrix products read the state "copy/<parameter>" instead of a parameter, and other float32
 *    operands through a convert;
 *  - with `loss_scaling` the gradients of the losses are multiplied by the first element of the state "loss_scale".
 * After graph_backward, if there is one, and before graph_accumulate and graph_sgd. */
typedef struct {
    dtype activation;
    bool loss_scaling;
} precision_options;
void graph_precision(graph *g, const precision_options *options);

#endif

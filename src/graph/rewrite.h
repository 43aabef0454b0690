/* Exact rewrites: the same function with less work. They run on the forward graph, before the backward is
 * derived, so that the backward gains as much; results differ by rounding only. */
#ifndef TESKD_GRAPH_REWRITE_H
#define TESKD_GRAPH_REWRITE_H

#include "graph/graph.h"

typedef struct {
    bool upsample;    /* conv1x1(upsample(x)) = upsample(conv1x1(x)): a quarter of the work */
    bool fuse;        /* conv1x1(concat(u + l, u)), weight [Wa, Wb] = (Wa + Wb) u + Wa l: no sum, no concatenation */
    bool patch;       /* a k x k stride k convolution without padding is one matrix product over patches */
    bool upsample_bn; /* bn(upsample(x)) from x: the upsampled map itself is never made */
    bool linear_bn;   /* bn(conv1x1(x)) of a narrow x from x's moments: one product gives the normalised map */
    bool bias;        /* bn(x + b) = bn(x) with batch statistics: a layer's bias only shifts the running mean */
} rewrite_options;

void graph_rewrite(graph *g, const rewrite_options *options);

#endif

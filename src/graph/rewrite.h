/* Exact rewrites: the same function with less work. They run on the forward graph, before the backward is
 * derived, so that the backward gains as much; results differ by rounding only. */
#ifndef TESKD_GRAPH_REWRITE_H
#define TESKD_GRAPH_REWRITE_H

#include "graph/graph.h"

/* Bits of a set of rewrites. */
enum {
    REWRITE_UPSAMPLE = 1 << 0,    /* conv1x1(upsample(x)) = upsample(conv1x1(x)): a quarter of the work */
    REWRITE_FUSE = 1 << 1,        /* conv1x1(concat(u + l, u)), weight [Wa, Wb] = (Wa + Wb) u + Wa l: no sum, no
                                   * concatenation */
    REWRITE_PATCH = 1 << 2,       /* a k x k stride k convolution without padding is one product over patches */
    REWRITE_UPSAMPLE_BN = 1 << 3, /* bn(upsample(x)) from x: the upsampled feature map itself is never made */
    REWRITE_LINEAR_BN = 1 << 4,   /* bn(conv1x1(x)) of a narrow x from x's moments: one product normalises, too */
    REWRITE_BIAS = 1 << 5,        /* bn(x + b) = bn(x) with batch statistics: a bias only shifts the running mean */
    REWRITE_NONE = 0,
    REWRITE_ALL = (1 << 6) - 1,
};

void graph_rewrite(graph *g, unsigned rewrites);

#endif

/* Values placed where their readers want them: for devices that can read and write rows elsewhere than by lines. */
#ifndef TESKD_GRAPH_PLACEMENT_H
#define TESKD_GRAPH_PLACEMENT_H

#include "graph/graph.h"

/* Lays the two operands of each concat_linear side by side, row by row, so that the product is one of twice the width
 * instead of two, the second of which reads and writes the result again; and the two gradients that come back alike.
 * Lays a map that is only cut into patches in the patches' order from the start, and the gradient of such a map where
 * its patches are, so that patchify and unpatchify need not run.
 * Only where all that writes and reads them can do with a row_stride or a patch: batch normalisation and the products.
 * The last pass before the plan. */
void graph_place_operands(graph *g);

#endif

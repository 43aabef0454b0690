/* Values placed where their readers want them: for devices that can read and write rows elsewhere than by lines. */
#ifndef TESKD_GRAPH_PLACEMENT_H
#define TESKD_GRAPH_PLACEMENT_H

#include "graph/graph.h"

/* Lays the two operands of each concat_linear side by side, row by row: the product is then one of twice the width. Two
 * would read and write the result once more. The two gradients that come back lie alike.
 * Lays a feature map that is only cut into patches in the patches' order from the start: patchify need not run. The
 * gradient of such a feature map lies where its patches are: unpatchify need not run.
 * Only where all that writes and reads them can do with a row_stride or a patch: batch normalisation and the products.
 * The last pass before the plan. */
void graph_place_operands(graph *g);

#endif

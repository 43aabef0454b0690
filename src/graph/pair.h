/* Operands side by side: for devices that can read and write rows with a stride. */
#ifndef TESKD_GRAPH_PAIR_H
#define TESKD_GRAPH_PAIR_H

#include "graph/graph.h"

/* Lays the two operands of each concat_linear side by side, row by row, so that the product is one of twice the width
 * instead of two, the second of which reads and writes the result again; and the two gradients that come back alike.
 * Only where all that writes and reads them can do with a row_stride: batch normalisation and the products. The last
 * pass before the plan. */
void graph_pair_operands(graph *g);

#endif

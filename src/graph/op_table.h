/* What the passes know of each op: the rows of ops.def. Private to the graph. */
#ifndef TESKD_GRAPH_OP_TABLE_H
#define TESKD_GRAPH_OP_TABLE_H

#include "graph/graph.h"

typedef struct backward backward;

/* Fills the descriptor of output 0 from the node's inputs; 0 or a negative code. */
typedef int shape_rule(const graph *g, const graph_node *node, tensor_desc *out);

/* Emits the nodes that carry the gradient of the node's output to its inputs. */
typedef void gradient_rule(backward *b, const graph_node *node);

typedef struct {
    const char *name;
    uint8_t min_in, max_in, max_out;
    int8_t in_place; /* input whose memory output 0 may take over, or -1 */
    shape_rule *shape;
    gradient_rule *gradient;
} op_row;

const op_row *op_table_row(op_id op);

#define OP(id, name, min_in, max_in, max_out, in_place, shape, gradient, traits)                                       \
    shape_rule shape;                                                                                                  \
    gradient_rule gradient;
#include "graph/ops.def"
#undef OP

#endif

/* What gradient rules work with while the backward is emitted. Private to the graph. */
#ifndef TESKD_GRAPH_BACKWARD_H
#define TESKD_GRAPH_BACKWARD_H

#include "graph/op_table.h"

struct backward {
    graph *g;
    bool sync_bn;
    bool *wanted;               /* per forward value: does a parameter lie before it? */
    struct contribution *lists; /* per forward value: its gradient's terms so far */
};

enum { CONTRIBUTIONS_MAX = 8 };

/* Does anybody need the gradient of this value? False for VALUE_NONE. */
bool backward_wants(const backward *b, value_id value);

/* The terms of a value's gradient, each from one of its readers; returns how many. */
int backward_terms(const backward *b, value_id value, value_id terms[CONTRIBUTIONS_MAX]);

/* The whole gradient of a value: its only term, or an add of them. */
value_id backward_take(backward *b, value_id value);

/* A new value for (a term of) the gradient of `value`: of KIND_GRADIENT for a parameter. Registers the term. */
value_id backward_give_new(backward *b, value_id value);

/* Registers an existing value as a term of the gradient of `value`. */
void backward_give(backward *b, value_id value, value_id term);

#endif

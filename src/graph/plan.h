/* Where each value lives: an offset in the arena of its kind. */
#ifndef TESKD_GRAPH_PLAN_H
#define TESKD_GRAPH_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGNMENT = 64 };

typedef struct {
    uint32_t n_values;
    size_t *offset; /* bytes, by value id; meaningless for values that no node touches */
    bool *placed;   /* does a node touch the value? */
    size_t arena_bytes[KIND_COUNT];
    size_t activation_bytes_unpacked; /* what the activations would take without sharing */
} memory_plan;

/* Inputs, parameters and states lie in the order of their creation, gradients in the order in which the backward
 * completes them. Activations are packed by lifetime: two share bytes only if one is dead before the other is written,
 * or if an op may work in place. Returns 0 or ERROR_MEMORY; free with plan_free. */
int plan_make(memory_plan *plan, const graph *g);
void plan_free(memory_plan *plan);

#endif

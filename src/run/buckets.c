/* Owns how the gradient arena is cut into buckets. Invariant: buckets lie end to end over all of it, in the order in
 * which the backward completes them. One thread. */
#include "base/error.h"
#include "run/program_private.h"

#include <stdlib.h>

/* Where the gradients that this node writes end; 0: it writes none. */
static size_t gradients_end(const program *p, uint32_t node)
{
    const graph *g = &p->step;
    size_t end = 0;
    for (int k = 0; k < g->nodes[node].n_out; k++) {
        value_id id = g->nodes[node].out[k];
        size_t value_end = p->plan.offset[id] + tensor_bytes(graph_desc(g, id));
        if (graph_desc(g, id)->kind == KIND_GRADIENT && value_end > end)
            end = value_end;
    }
    return (end + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Buckets grow from both ends of the arena: the first one keeps the network waiting while it is filled, the last one
 * keeps the update waiting. */
size_t bucket_enough(const bucket_sizes *sizes, size_t before, size_t behind)
{
    size_t head = larger(sizes->first, before), tail = larger(sizes->last, behind);
    size_t ends = head < tail ? head : tail;
    return ends < sizes->most ? ends : sizes->most;
}

/* Gradients lie in the order of their completion, so a bucket closes after the node that fills it. */
int buckets_cut(program *p, const bucket_sizes *sizes)
{
    const graph *g = &p->step;
    const size_t all = p->plan.arena_bytes[KIND_GRADIENT];
    size_t begin = 0;
    p->buckets = calloc(g->n_nodes + 1, sizeof *p->buckets);
    CHECK(p->buckets, ERROR_MEMORY, "no memory for the gradient buckets");
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        size_t end = gradients_end(p, i);
        if (end == 0 || (end < all && end - begin < bucket_enough(sizes, begin, all - end)))
            continue;
        p->buckets[p->n_buckets++] = (gradient_bucket){.offset = begin, .bytes = end - begin, .last_node = i};
        begin = end;
    }
    return 0;
}

/* Owns the placement of values in arenas. Invariant: of two activations in overlapping bytes, one's last reader runs
 * before the other's writer, or they are one buffer worked on in place. One thread. */
#include "graph/plan.h"
#include "base/error.h"
#include "graph/op_table.h"

#include <stdlib.h>
#include <string.h>

/* Activations that are one buffer, by in-place ops or as parts of a whole; known by its first member, or the whole. */
typedef struct {
    value_id first;
    uint32_t begin, end; /* nodes that write it first and read it last */
    size_t bytes;
    size_t offset;
} buffer;

typedef struct {
    const graph *g;
    uint32_t *begin, *end; /* per value; begin > end: no node touches it */
    value_id *owner;       /* per activation: the first member of its buffer */
} lifetimes;

static size_t aligned(size_t bytes)
{
    return (bytes + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
}

static void touch(lifetimes *life, value_id value, uint32_t node)
{
    if (life->begin[value] > node)
        life->begin[value] = node;
    if (life->end[value] < node)
        life->end[value] = node;
}

static void measure(lifetimes *life)
{
    const graph *g = life->g;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i].n_in; k++)
            touch(life, g->nodes[i].in[k], i);
        for (int k = 0; k < g->nodes[i].n_out; k++)
            touch(life, g->nodes[i].out[k], i);
    }
    for (value_id id = 1; id < g->n_values; id++)
        if (g->values[id].keep && life->begin[id] <= life->end[id])
            life->end[id] = g->n_nodes;
    for (value_id id = 1; id < g->n_values; id++) /* a whole lives as long as any of its parts */
        if (g->values[id].whole && life->begin[id] <= life->end[id]) {
            touch(life, g->values[id].whole, life->begin[id]);
            touch(life, g->values[id].whole, life->end[id]);
        }
}

/* May output 0 of the node take over the input's memory? */
static bool can_share(const lifetimes *life, const graph_node *node, uint32_t index)
{
    int k = op_table_row((op_id)node->op)->in_place;
    if (k < 0 || k >= node->n_in || node->n_out == 0)
        return false;
    value_id in = node->in[k], out = node->out[0];
    const tensor_desc *a = graph_desc(life->g, in), *b = graph_desc(life->g, out);
    int readings = 0;
    for (int j = 0; j < node->n_in; j++)
        readings += node->in[j] == in;
    bool parts = life->g->values[in].whole || life->g->values[out].whole;
    return !parts && a->kind == KIND_ACTIVATION && b->kind == KIND_ACTIVATION && tensor_bytes(a) == tensor_bytes(b) &&
           life->end[in] == index && readings == 1;
}

/* Joins the buffers of in-place ops, in order, so that an owner is always an earlier value. */
static void join(lifetimes *life)
{
    const graph *g = life->g;
    for (value_id id = 0; id < g->n_values; id++)
        life->owner[id] = id;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        if (!can_share(life, node, i))
            continue;
        value_id owner = life->owner[node->in[op_table_row((op_id)node->op)->in_place]];
        life->owner[node->out[0]] = owner;
    }
    for (value_id id = 1; id < g->n_values; id++)
        if (g->values[id].whole)
            life->owner[id] = g->values[id].whole;
    for (value_id id = 1; id < g->n_values; id++) {
        value_id owner = life->owner[id];
        if (owner != id && life->end[id] > life->end[owner])
            life->end[owner] = life->end[id];
    }
}

static int larger_first(const void *a, const void *b)
{
    const buffer *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->first < y->first ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    const buffer *x = *(const buffer *const *)a, *y = *(const buffer *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Lowest offset at which the buffer meets no placed one that lives at the same time. */
static size_t lowest_fit(const buffer *wanted, const buffer *placed, uint32_t n_placed, const buffer **alive)
{
    uint32_t n_alive = 0;
    for (uint32_t i = 0; i < n_placed; i++)
        if (placed[i].begin <= wanted->end && wanted->begin <= placed[i].end)
            alive[n_alive++] = &placed[i];
    qsort(alive, n_alive, sizeof *alive, lower_first);
    size_t offset = 0;
    for (uint32_t i = 0; i < n_alive; i++) {
        if (offset + wanted->bytes <= alive[i]->offset)
            break;
        if (alive[i]->offset + alive[i]->bytes > offset)
            offset = alive[i]->offset + alive[i]->bytes;
    }
    return offset;
}

static int pack_activations(memory_plan *plan, const lifetimes *life)
{
    const graph *g = life->g;
    int status = 0;
    uint32_t n = 0;
    buffer *buffers = calloc(g->n_values, sizeof *buffers);
    const buffer **alive = calloc(g->n_values, sizeof *alive);
    if (!buffers || !alive) {
        status = error_set(ERROR_MEMORY, "no memory to plan %u values", g->n_values);
        goto out;
    }
    for (value_id id = 1; id < g->n_values; id++)
        if (graph_desc(g, id)->kind == KIND_ACTIVATION && plan->placed[id] && life->owner[id] == id)
            buffers[n++] = (buffer){id, life->begin[id], life->end[id], aligned(tensor_bytes(graph_desc(g, id))), 0};
    qsort(buffers, n, sizeof *buffers, larger_first);
    for (uint32_t i = 0; i < n; i++) {
        buffers[i].offset = lowest_fit(&buffers[i], buffers, i, alive);
        plan->offset[buffers[i].first] = buffers[i].offset;
        plan->activation_bytes_unpacked += buffers[i].bytes;
        size_t end = buffers[i].offset + buffers[i].bytes;
        if (end > plan->arena_bytes[KIND_ACTIVATION])
            plan->arena_bytes[KIND_ACTIVATION] = end;
    }
    for (value_id id = 1; id < g->n_values; id++)
        if (life->owner[id] != id)
            plan->offset[id] = plan->offset[life->owner[id]] +
                               (size_t)g->values[id].whole_channel * dtype_bytes(graph_desc(g, id)->dtype);
out:
    free(buffers);
    free(alive);
    return status;
}

static void append(memory_plan *plan, const graph *g, value_id id)
{
    const tensor_desc *desc = graph_desc(g, id);
    plan->offset[id] = plan->arena_bytes[desc->kind];
    plan->arena_bytes[desc->kind] += aligned(tensor_bytes(desc));
}

static void place_in_order(memory_plan *plan, const graph *g)
{
    for (value_id id = 1; id < g->n_values; id++) {
        uint8_t kind = graph_desc(g, id)->kind;
        if (kind == KIND_INPUT || kind == KIND_PARAMETER || kind == KIND_STATE)
            append(plan, g, id);
    }
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (graph_desc(g, g->nodes[i].out[k])->kind == KIND_GRADIENT)
                append(plan, g, g->nodes[i].out[k]);
}

int plan_make(memory_plan *plan, const graph *g)
{
    *plan = (memory_plan){.n_values = g->n_values};
    uint32_t n = g->n_values;
    lifetimes life = {.g = g,
                      .begin = malloc(n * sizeof *life.begin),
                      .end = calloc(n, sizeof *life.end),
                      .owner = calloc(n, sizeof *life.owner)};
    plan->offset = calloc(n, sizeof *plan->offset);
    plan->placed = calloc(n, sizeof *plan->placed);
    int status = 0;
    if (!life.begin || !life.end || !life.owner || !plan->offset || !plan->placed) {
        status = error_set(ERROR_MEMORY, "no memory to plan %u values", n);
        goto out;
    }
    memset(life.begin, 0xff, n * sizeof *life.begin);
    measure(&life);
    for (value_id id = 1; id < n; id++)
        plan->placed[id] = life.begin[id] <= life.end[id];
    join(&life);
    place_in_order(plan, g);
    status = pack_activations(plan, &life);
out:
    free(life.begin);
    free(life.end);
    free(life.owner);
    if (status < 0)
        plan_free(plan);
    return status;
}

void plan_free(memory_plan *plan)
{
    free(plan->offset);
    free(plan->placed);
    *plan = (memory_plan){0};
}

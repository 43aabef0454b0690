/* Owns programs and the arenas they share. Invariant: after runtime_bind nothing is allocated. One thread. */
#include "run/program.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double run_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void runtime_open(runtime *r, backend *device, comm *ranks, store *tensors, size_t bucket_bytes)
{
    *r = (runtime){.device = device, .ranks = ranks, .tensors = tensors, .bucket_bytes = bucket_bytes};
}

static void program_free(program *p, backend *device)
{
    for (uint32_t i = 0; p->kernels && i < p->step.n_nodes; i++)
        if (p->kernels[i])
            device->ops->release(device, p->kernels[i]);
    free(p->kernels);
    free(p->args);
    free(p->buckets);
    plan_free(&p->plan);
    graph_free(&p->step);
    free(p);
}

void runtime_close(runtime *r)
{
    for (int i = 0; i < r->n_programs; i++)
        program_free(r->programs[i], r->device);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        if (r->arena[kind])
            r->device->ops->free(r->device, r->arena[kind]);
    if (r->workspace)
        r->device->ops->free(r->device, r->workspace);
    *r = (runtime){0};
}

static int prepare_node(runtime *r, program *p, uint32_t index)
{
    const graph *g = &p->step;
    const graph_node *node = &g->nodes[index];
    if (node->op == OP_ALL_REDUCE)
        return 0;
    kernel_request request = {.node = *node, .label = g->labels[index]};
    for (int k = 0; k < node->n_in; k++)
        request.in[k] = *graph_desc(g, node->in[k]);
    for (int k = 0; k < node->n_out; k++)
        request.out[k] = *graph_desc(g, node->out[k]);
    size_t workspace = 0;
    int status = r->device->ops->prepare(r->device, &request, &p->kernels[index], &workspace);
    if (status < 0)
        return error_prefix(status, "%s of %s", op_name((op_id)node->op), request.label);
    if (workspace > p->workspace_bytes)
        p->workspace_bytes = workspace;
    return 0;
}

/* Gradients lie in the order of their completion, so a bucket closes after the node that fills it. */
static int cut_buckets(program *p, size_t bucket_bytes)
{
    const graph *g = &p->step;
    size_t begin = 0;
    p->buckets = calloc(g->n_nodes + 1, sizeof *p->buckets);
    CHECK(p->buckets, ERROR_MEMORY, "no memory for the gradient buckets");
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        size_t end = 0;
        for (int k = 0; k < g->nodes[i].n_out; k++) {
            value_id id = g->nodes[i].out[k];
            size_t value_end = p->plan.offset[id] + tensor_bytes(graph_desc(g, id));
            if (graph_desc(g, id)->kind == KIND_GRADIENT && value_end > end)
                end = value_end;
        }
        bool all = end + PLAN_ALIGNMENT > p->plan.arena_bytes[KIND_GRADIENT];
        if (end == 0 || (end - begin < bucket_bytes && !all))
            continue;
        end = (end + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
        p->buckets[p->n_buckets++] = (gradient_bucket){.offset = begin, .bytes = end - begin, .last_node = i};
        begin = end;
    }
    return 0;
}

static int prepare_program(runtime *r, program *p)
{
    TRY(graph_status(&p->step));
    TRY(plan_make(&p->plan, &p->step));
    p->kernels = calloc(p->step.n_nodes + 1, sizeof *p->kernels);
    p->args = calloc(p->step.n_nodes + 1, sizeof *p->args);
    CHECK(p->kernels && p->args, ERROR_MEMORY, "no memory for %u kernels", p->step.n_nodes);
    for (uint32_t i = 0; i < p->step.n_nodes; i++)
        TRY(prepare_node(r, p, i));
    return cut_buckets(p, r->bucket_bytes);
}

int runtime_add(runtime *r, graph *g, program **out)
{
    program *p = calloc(1, sizeof *p);
    if (!p || r->n_programs == PROGRAMS_MAX) {
        free(p);
        graph_free(g);
        return error_set(ERROR_MEMORY, "no room for another program");
    }
    p->step = *g;
    *g = (graph){0};
    int status = prepare_program(r, p);
    if (status < 0) {
        program_free(p, r->device);
        return status;
    }
    r->programs[r->n_programs++] = p;
    *out = p;
    return 0;
}

static bool is_shared_kind(int kind)
{
    return kind == KIND_INPUT || kind == KIND_GRADIENT || kind == KIND_ACTIVATION;
}

static int allocate(runtime *r, size_t bytes, void **memory)
{
    if (bytes == 0)
        return 0;
    *memory = r->device->ops->alloc(r->device, bytes);
    CHECK(*memory, ERROR_MEMORY,
          "no memory for %zu bytes of activations and gradients; a smaller train.batch needs less", bytes);
    return 0;
}

static void *resolve(const runtime *r, const program *p, value_id id)
{
    const graph_value *value = &p->step.values[id];
    if (id == VALUE_NONE)
        return NULL;
    if (is_shared_kind(value->desc.kind))
        return (char *)r->arena[value->desc.kind] + p->plan.offset[id];
    store_entry *entry = store_find(r->tensors, value->name);
    return entry ? entry->memory : NULL;
}

static int bind_program(runtime *r, program *p)
{
    const graph *g = &p->step;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            p->args[i].in[k] = resolve(r, p, node->in[k]);
            CHECK(p->args[i].in[k] || node->in[k] == VALUE_NONE, ERROR_INTERNAL, "%s is not in the store",
                  g->values[node->in[k]].name);
        }
        for (int k = 0; k < node->n_out; k++)
            p->args[i].out[k] = resolve(r, p, node->out[k]);
        p->args[i].workspace = r->workspace;
    }
    return 0;
}

int runtime_bind(runtime *r)
{
    CHECK(!r->arena[KIND_ACTIVATION], ERROR_INTERNAL, "the runtime is bound already");
    for (int i = 0; i < r->n_programs; i++) {
        const program *p = r->programs[i];
        for (int kind = 0; kind < KIND_COUNT; kind++)
            if (is_shared_kind(kind) && p->plan.arena_bytes[kind] > r->arena_bytes[kind])
                r->arena_bytes[kind] = p->plan.arena_bytes[kind];
        if (p->workspace_bytes > r->workspace_bytes)
            r->workspace_bytes = p->workspace_bytes;
    }
    for (int kind = 0; kind < KIND_COUNT; kind++)
        TRY(allocate(r, r->arena_bytes[kind], &r->arena[kind]));
    TRY(allocate(r, r->workspace_bytes, &r->workspace));
    if (r->arena[KIND_GRADIENT]) /* the gaps between gradients are reduced with them */
        memset(r->arena[KIND_GRADIENT], 0, r->arena_bytes[KIND_GRADIENT]);
    for (int i = 0; i < r->n_programs; i++)
        TRY(bind_program(r, r->programs[i]));
    return 0;
}

void *program_value(const program *p, const runtime *r, const char *name, const tensor_desc **desc)
{
    value_id id = graph_find(&p->step, name);
    if (id == VALUE_NONE)
        return NULL;
    if (desc)
        *desc = graph_desc(&p->step, id);
    return resolve(r, p, id);
}

/* Makes programs of graphs: a plan, a kernel for each node, gradient buckets (buckets.c). Nothing on the device is
 * allocated here. One thread. */
#include "base/error.h"
#include "run/program_private.h"

#include <stdlib.h>

static int prepare_node(runtime *r, program *p, uint32_t index)
{
    const graph *g = &p->step;
    const graph_node *node = &g->nodes[index];
    if (node->op == OP_ALL_REDUCE)
        return 0;
    kernel_request request = {.node = *node, .label = node->label};
    for (int k = 0; k < node->n_in; k++)
        request.in[k] = *graph_desc(g, node->in[k]);
    for (int k = 0; k < node->n_out; k++)
        request.out[k] = *graph_desc(g, node->out[k]);
    size_t workspace = 0;
    int status = r->options.device->ops->prepare(r->options.device, &request, &p->kernels[index], &workspace);
    if (status < 0)
        return error_prefix(status, "%s of %s", op_name((op_id)node->op), request.label);
    if (workspace > p->workspace_bytes)
        p->workspace_bytes = workspace;
    return 0;
}

static int prepare_program(runtime *r, program *p)
{
    TRY(graph_status(&p->step));
    TRY(plan_make(&p->plan, &p->step));
    p->kernels = calloc(p->step.n_nodes + 1, sizeof *p->kernels);
    p->launches = calloc(p->step.n_nodes + 1, sizeof *p->launches);
    CHECK(p->kernels && p->launches, ERROR_MEMORY, "no memory for %u kernels", p->step.n_nodes);
    for (uint32_t i = 0; i < p->step.n_nodes; i++) {
        TRY(prepare_node(r, p, i));
        p->updates = p->updates || op_has(p->step.nodes[i].op, TRAIT_UPDATE);
    }
    return buckets_cut(p, &r->options.buckets);
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
        program_free(p, r->options.device);
        return status;
    }
    for (int kind = 0; kind < KIND_COUNT; kind++)
        if (is_shared_kind(kind) && p->plan.arena_bytes[kind] > r->arena_bytes[kind])
            r->arena_bytes[kind] = p->plan.arena_bytes[kind];
    if (p->workspace_bytes > r->workspace_bytes)
        r->workspace_bytes = p->workspace_bytes;
    r->programs[r->n_programs++] = p;
    *out = p;
    return 0;
}

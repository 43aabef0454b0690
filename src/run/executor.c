/* Owns the loop over a program's nodes. Invariant: every rank starts the same reductions in the same order. One thread.
 */
#include "base/error.h"
#include "run/program.h"

static comm_dtype comm_type(uint8_t type)
{
    return type == DTYPE_F64 ? COMM_F64 : COMM_F32;
}

static int reduce_value(runtime *r, const program *p, uint32_t index)
{
    const tensor_desc *desc = graph_desc(&p->step, p->step.nodes[index].in[0]);
    return comm_all_reduce(r->ranks, kernel_in_out(&p->args[index], 0), (size_t)tensor_count(desc),
                           comm_type(desc->dtype));
}

static int start_bucket(runtime *r, gradient_bucket *bucket)
{
    size_t element = dtype_bytes((uint8_t)r->device->ops->real);
    return comm_all_reduce_start(r->ranks, (char *)r->arena[KIND_GRADIENT] + bucket->offset, bucket->bytes / element,
                                 comm_type((uint8_t)r->device->ops->real), &bucket->request);
}

static int run_node(runtime *r, program *p, uint32_t index)
{
    if (p->step.nodes[index].op == OP_ALL_REDUCE)
        return reduce_value(r, p, index);
    int status = r->device->ops->launch(r->device, p->kernels[index], &p->args[index]);
    if (status < 0)
        return error_prefix(status, "%s of %s", op_name((op_id)p->step.nodes[index].op), p->step.labels[index]);
    return comm_progress(r->ranks);
}

static bool reads_gradient(const graph *g, const graph_node *node)
{
    for (int k = 0; k < node->n_in; k++)
        if (graph_desc(g, node->in[k])->kind == KIND_GRADIENT)
            return true;
    return false;
}

int program_run(runtime *r, program *p, double *node_seconds)
{
    uint32_t started = 0, waited = 0;
    for (uint32_t i = 0; i < p->step.n_nodes; i++) {
        double begin = node_seconds ? run_clock() : 0;
        while (waited < started && reads_gradient(&p->step, &p->step.nodes[i]))
            TRY(comm_wait(r->ranks, &p->buckets[waited++].request));
        TRY(run_node(r, p, i));
        if (started < p->n_buckets && p->buckets[started].last_node == i)
            TRY(start_bucket(r, &p->buckets[started++]));
        if (node_seconds)
            node_seconds[i] += run_clock() - begin;
    }
    while (waited < started)
        TRY(comm_wait(r->ranks, &p->buckets[waited++].request));
    return 0;
}

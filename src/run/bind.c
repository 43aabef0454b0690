/* Gives programs their memory. Invariant: after runtime_bind nothing is allocated. One thread. */
#include "base/error.h"
#include "run/memory_report.h"
#include "run/program_private.h"

#include <stdlib.h>

static int allocate(runtime *r, size_t bytes, void **memory)
{
    if (bytes == 0)
        return 0;
    *memory = r->options.device->ops->alloc(r->options.device, bytes);
    return *memory ? 0 : memory_explain(r, bytes);
}

/* Gradients travel in 16 bits. */
static bool narrows(const runtime *r)
{
    return r->options.reducer && dtype_bytes(r->options.reduction_dtype) == 2;
}

/* What `bytes` of gradients take in the dtype they travel in. */
static size_t narrowed_bytes(const runtime *r, size_t bytes)
{
    return bytes / dtype_bytes(r->options.device->ops->real) * dtype_bytes(r->options.reduction_dtype);
}

/* What the ranks sum lies where the reduction wants it, if it has a wish. All ranks take part: it comes before anything
 * that could fail on one of them. */
static int allocate_for_reduction(runtime *r)
{
    reduction *reducer = r->options.reducer;
    size_t all = r->arena_bytes[KIND_GRADIENT], bytes = narrows(r) ? narrowed_bytes(r, all) : all;
    void **memory = narrows(r) ? &r->narrowed_gradients : &r->arena[KIND_GRADIENT];
    if (bytes == 0 || !reducer || !reducer->ops->alloc)
        return 0;
    TRY(reducer->ops->alloc(reducer, bytes, memory));
    r->reduction_memory = *memory;
    return 0;
}

void *program_memory(const runtime *r, const program *p, value_id id)
{
    const graph_value *value = &p->step.values[id];
    if (id == VALUE_NONE)
        return NULL;
    if (is_shared_kind(value->desc.kind))
        return (char *)r->arena[value->desc.kind] + p->plan.offset[id];
    store_entry *entry = store_find(r->options.tensors, value->name);
    return entry ? entry->memory : NULL;
}

static int bind_node(const runtime *r, const program *p, uint32_t index, kernel_args *args)
{
    const graph *g = &p->step;
    const graph_node *node = &g->nodes[index];
    for (int k = 0; k < node->n_in; k++) {
        args->in[k] = program_memory(r, p, node->in[k]);
        CHECK(args->in[k] || node->in[k] == VALUE_NONE, ERROR_INTERNAL, "%s is not in the store",
              g->values[node->in[k]].name);
    }
    for (int k = 0; k < node->n_out; k++)
        args->out[k] = program_memory(r, p, node->out[k]);
    args->workspace = r->workspace;
    return 0;
}

static bool overlap(const graph *g, value_id x, const void *x_memory, value_id y, const void *y_memory)
{
    uintptr_t x_begin = (uintptr_t)x_memory, y_begin = (uintptr_t)y_memory;
    return x_begin < y_begin + tensor_bytes(graph_desc(g, y)) && y_begin < x_begin + tensor_bytes(graph_desc(g, x));
}

static bool writes_what_touches(const graph *g, const graph_node *writer, const kernel_args *writer_args,
                                const graph_node *other, const kernel_args *other_args)
{
    for (int k = 0; k < writer->n_out; k++) {
        for (int in = 0; in < other->n_in; in++)
            if (overlap(g, writer->out[k], writer_args->out[k], other->in[in], other_args->in[in]))
                return true;
        for (int out = 0; out < other->n_out; out++)
            if (overlap(g, writer->out[k], writer_args->out[k], other->out[out], other_args->out[out]))
                return true;
    }
    return false;
}

/* How many nodes from `first` on make one launch. In a launch of losses nothing comes before anything else. The plan
 * sees the nodes one after another, and may have given a result memory that an earlier node is done with. */
static uint32_t run_length(const program *p, uint32_t first, const kernel_args *args)
{
    const graph *g = &p->step;
    const graph_node *nodes = g->nodes + first;
    uint32_t n = graph_run_length(g, first);
    for (uint32_t end = 1; end < n && op_is_loss(nodes->op); end++)
        for (uint32_t i = 0; i < end; i++)
            if (writes_what_touches(g, &nodes[i], &args[i], &nodes[end], &args[end]) ||
                writes_what_touches(g, &nodes[end], &args[end], &nodes[i], &args[i]))
                return end;
    return n;
}

/* One launch for all `n` nodes from `first` on, where the device has such a thing. */
static int batch_launches(const runtime *r, program *p, uint32_t first, uint32_t n, const kernel_args *args)
{
    backend *device = r->options.device;
    kernel *batched = NULL;
    if (n > 1 && device->ops->batch_launches && p->kernels[first])
        TRY(device->ops->batch_launches(device, n, &p->kernels[first], args, &batched));
    if (batched) {
        p->launches[p->n_launches++] = (program_launch){.kernel = batched, .first_node = first, .n_nodes = n};
        return 0;
    }
    for (uint32_t i = 0; i < n; i++)
        p->launches[p->n_launches++] =
            (program_launch){.kernel = p->kernels[first + i], .args = args[i], .first_node = first + i, .n_nodes = 1};
    return 0;
}

static int bind_inputs(const runtime *r, program *p)
{
    const graph *g = &p->step;
    for (value_id id = 1; id < g->n_values; id++) {
        const graph_value *value = &g->values[id];
        if (value->desc.kind != KIND_INPUT)
            continue;
        CHECK(p->n_inputs < PROGRAM_INPUTS, ERROR_INTERNAL, "more than %d inputs", PROGRAM_INPUTS);
        p->inputs[p->n_inputs++] = (program_input){
            .name = value->name, .memory = program_memory(r, p, id), .bytes = tensor_bytes(&value->desc)};
    }
    return 0;
}

static int bind_program(const runtime *r, program *p)
{
    TRY(bind_inputs(r, p));
    kernel_args *args = calloc(p->step.n_nodes + 1, sizeof *args);
    CHECK(args, ERROR_MEMORY, "no memory to bind %u nodes", p->step.n_nodes);
    int status = 0;
    for (uint32_t i = 0; i < p->step.n_nodes && status == 0; i++)
        status = bind_node(r, p, i, &args[i]);
    for (uint32_t i = 0; i < p->step.n_nodes && status == 0;) {
        uint32_t n = run_length(p, i, args + i);
        status = batch_launches(r, p, i, n, args + i);
        i += n;
    }
    free(args);
    return status;
}

static int prepare_conversion(backend *device, size_t count, dtype from, dtype to, kernel **out)
{
    const tensor_desc wide = {
        .dim = {1, 1, 1, (int32_t)count}, .dtype = (uint8_t)from, .layout = LAYOUT_C, .kind = KIND_GRADIENT};
    kernel_request request = {
        .node = {.op = OP_CONVERT, .n_in = 1, .n_out = 1}, .in = {wide}, .out = {wide}, .label = "gradients"};
    size_t workspace = 0;
    request.out[0].dtype = (uint8_t)to;
    return device->ops->prepare(device, &request, out, &workspace);
}

/* Gradients that travel in 16 bits get memory and conversions of their own. */
static int narrow_buckets(runtime *r, program *p)
{
    backend *device = r->options.device;
    if (!narrows(r))
        return 0;
    if (!r->narrowed_gradients)
        TRY(allocate(r, narrowed_bytes(r, r->arena_bytes[KIND_GRADIENT]), &r->narrowed_gradients));
    for (uint32_t i = 0; i < p->n_buckets; i++) {
        gradient_bucket *bucket = &p->buckets[i];
        size_t count = bucket->bytes / dtype_bytes(device->ops->real);
        bucket->narrowed = (char *)r->narrowed_gradients + narrowed_bytes(r, bucket->offset);
        TRY(prepare_conversion(device, count, device->ops->real, r->options.reduction_dtype, &bucket->narrow));
        TRY(prepare_conversion(device, count, r->options.reduction_dtype, device->ops->real, &bucket->widen));
    }
    return 0;
}

/* The launch that turns the ranks' sums of the running statistics into means. */
static int prepare_statistics(runtime *r)
{
    const store *s = r->options.tensors;
    backend *device = r->options.device;
    uint8_t real = (uint8_t)device->ops->real;
    if (!r->options.average_statistics || !r->options.reducer || s->statistics_bytes == 0)
        return 0;
    kernel_request request = {.node = {.op = OP_SCALE, .n_in = 1, .attr = {.weight = 1.0 / r->options.ranks}},
                              .in = {{.dim = {1, 1, 1, (int32_t)(s->statistics_bytes / dtype_bytes(real))},
                                      .dtype = real,
                                      .layout = LAYOUT_C,
                                      .kind = KIND_STATE}},
                              .label = "the running statistics"};
    size_t workspace = 0;
    r->statistics_args.in[0] = s->statistics;
    return device->ops->prepare(device, &request, &r->statistics_mean, &workspace);
}

int runtime_bind(runtime *r)
{
    CHECK(!r->arena[KIND_ACTIVATION], ERROR_INTERNAL, "the runtime is bound already");
    TRY(allocate_for_reduction(r));
    for (int kind = 0; kind < KIND_COUNT; kind++)
        if (!r->arena[kind])
            TRY(allocate(r, r->arena_bytes[kind], &r->arena[kind]));
    TRY(allocate(r, r->workspace_bytes, &r->workspace));
    if (r->arena[KIND_GRADIENT]) /* the gaps between gradients are reduced with them */
        TRY(r->options.device->ops->zero(r->options.device, r->arena[KIND_GRADIENT], r->arena_bytes[KIND_GRADIENT]));
    TRY(prepare_statistics(r));
    for (int i = 0; i < r->n_programs; i++) {
        TRY(bind_program(r, r->programs[i]));
        TRY(narrow_buckets(r, r->programs[i]));
    }
    return 0;
}

void *program_value(const program *p, const runtime *r, const char *name, const tensor_desc **desc)
{
    value_id id = graph_find(&p->step, name);
    if (id == VALUE_NONE)
        return NULL;
    if (desc)
        *desc = graph_desc(&p->step, id);
    return program_memory(r, p, id);
}

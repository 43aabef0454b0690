/* Owns the words about memory. Pure functions of a runtime's plan; one thread. */
#include "run/memory_report.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

enum { LISTED = 5, LINE_BYTES = 160 };

static double mib(size_t bytes)
{
    return (double)bytes / 0x1p20;
}

/* 0 where the device cannot tell. */
static size_t free_bytes(const runtime *r)
{
    backend *device = r->options.device;
    size_t bytes = 0;
    return device->ops->free_bytes && device->ops->free_bytes(device, &bytes) == 0 ? bytes : 0;
}

/* Of weights and states, in the store or to be. */
static size_t kept_bytes(const runtime *r)
{
    size_t most = 0;
    for (int i = 0; i < r->n_programs; i++) {
        const size_t *arena = r->programs[i]->plan.arena_bytes;
        if (arena[KIND_PARAMETER] + arena[KIND_STATE] > most)
            most = arena[KIND_PARAMETER] + arena[KIND_STATE];
    }
    return most;
}

static size_t saved_bytes(const graph *g)
{
    size_t bytes = 0;
    for (value_id id = 1; id < g->n_values; id++) {
        const tensor_desc *desc = graph_desc(g, id);
        bool persistent = desc->kind == KIND_PARAMETER || desc->kind == KIND_STATE;
        if (persistent && store_is_saved(g->values[id].name))
            bytes += tensor_bytes(desc);
    }
    return bytes;
}

/* The program with the update has them all. */
size_t memory_saved_bytes(const runtime *r)
{
    size_t most = 0;
    for (int i = 0; i < r->n_programs; i++) {
        size_t bytes = saved_bytes(&r->programs[i]->step);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static size_t unpacked_bytes(const runtime *r)
{
    size_t most = 0;
    for (int i = 0; i < r->n_programs; i++)
        if (r->programs[i]->plan.activation_bytes_unpacked > most)
            most = r->programs[i]->plan.activation_bytes_unpacked;
    return most;
}

void memory_plan_text(const runtime *r, char *text, size_t bytes)
{
    const size_t *arena = r->arena_bytes;
    size_t kept = kept_bytes(r), left = free_bytes(r), all = kept + r->workspace_bytes;
    for (int kind = 0; kind < KIND_COUNT; kind++)
        all += arena[kind];
    int used = snprintf(text, bytes,
                        "%.0f MiB a rank: weights and states %.0f, gradients %.0f, activations %.0f (%.0f if none were "
                        "shared), inputs %.0f, workspace %.0f",
                        mib(all), mib(kept), mib(arena[KIND_GRADIENT]), mib(arena[KIND_ACTIVATION]),
                        mib(unpacked_bytes(r)), mib(arena[KIND_INPUT]), mib(r->workspace_bytes));
    if (left > 0 && used > 0 && (size_t)used < bytes)
        snprintf(text + used, bytes - (size_t)used, "; %.0f free", mib(left));
}

/* A value with the node that writes it first. */
typedef struct {
    const program *p;
    uint32_t node;
    value_id id;
    size_t bytes;
} listed_value;

static void list_value(listed_value list[LISTED], listed_value candidate)
{
    for (int i = 0; i < LISTED; i++)
        if (candidate.bytes > list[i].bytes) {
            listed_value next = list[i];
            list[i] = candidate;
            candidate = next;
        }
}

static const program *largest_program(const runtime *r)
{
    const program *largest = NULL;
    for (int i = 0; i < r->n_programs; i++)
        if (!largest || r->programs[i]->plan.arena_bytes[KIND_ACTIVATION] > largest->plan.arena_bytes[KIND_ACTIVATION])
            largest = r->programs[i];
    return largest;
}

static void list_largest(const program *p, listed_value list[LISTED])
{
    memset(list, 0, LISTED * sizeof *list);
    for (uint32_t i = 0; i < p->step.n_nodes; i++)
        for (int k = 0; k < p->step.nodes[i].n_out; k++) {
            value_id id = p->step.nodes[i].out[k];
            if (id != VALUE_NONE)
                list_value(list, (listed_value){p, i, id, tensor_bytes(graph_desc(&p->step, id))});
        }
}

static void value_text(const listed_value *v, char line[LINE_BYTES])
{
    const graph *g = &v->p->step;
    const tensor_desc *desc = graph_desc(g, v->id);
    const int32_t *d = desc->dim;
    snprintf(line, LINE_BYTES, "%s of %s, %dx%dx%dx%d %s: %.1f MiB", op_name((op_id)g->nodes[v->node].op),
             g->nodes[v->node].label, d[0], d[1], d[2], d[3], dtype_name(desc->dtype), mib(v->bytes));
}

/* Images of the program's batch whose share of memory would fit; 0 where it cannot be told. */
static int64_t batch_that_fits(const runtime *r, const program *p)
{
    value_id target = graph_find(&p->step, "target");
    int64_t batch = target ? graph_desc(&p->step, target)->dim[0] : 0;
    size_t left = free_bytes(r);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        left += r->arena[kind] ? r->arena_bytes[kind] : 0;
    size_t fixed = r->arena_bytes[KIND_GRADIENT];
    size_t growing = r->arena_bytes[KIND_ACTIVATION] + r->arena_bytes[KIND_INPUT] + r->workspace_bytes;
    if (batch == 0 || growing == 0 || free_bytes(r) == 0 || left <= fixed)
        return 0;
    return (int64_t)((double)(left - fixed) / ((double)growing / (double)batch));
}

int memory_explain(const runtime *r, size_t wanted)
{
    char text[LISTED * (LINE_BYTES + 2) + 1] = "", line[LINE_BYTES], fitting[96] = "a smaller train.batch needs less";
    listed_value list[LISTED];
    const program *p = largest_program(r);
    CHECK(p, ERROR_MEMORY, "no memory for %zu bytes", wanted);
    list_largest(p, list);
    size_t used = 0;
    for (int i = 0; i < LISTED && list[i].bytes > 0; i++) {
        value_text(&list[i], line);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? "; " : "", line);
    }
    int64_t batch = batch_that_fits(r, p);
    if (batch > 0)
        snprintf(fitting, sizeof fitting, "about %lld images per rank would fit (train.batch or train.accumulate)",
                 (long long)batch);
    return error_set(ERROR_MEMORY, "the device has no %.0f MiB left (%.0f free): %s. The largest values: %s",
                     mib(wanted), mib(free_bytes(r)), fitting, text);
}

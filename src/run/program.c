/* Owns programs and the arenas they share, from opening to closing. One thread. */
#include "run/program_private.h"

#include <stdlib.h>

void runtime_open(runtime *r, const runtime_options *options)
{
    *r = (runtime){.options = *options};
}

static void release_kernel(backend *device, kernel *k)
{
    if (k)
        device->ops->release(device, k);
}

void program_free(program *p, backend *device)
{
    if (p->captured)
        device->ops->release_captured(device, p->captured);
    for (uint32_t i = 0; i < p->n_launches; i++)
        if (p->launches[i].n_nodes > 1)
            release_kernel(device, p->launches[i].kernel);
    for (uint32_t i = 0; p->kernels && i < p->step.n_nodes; i++)
        release_kernel(device, p->kernels[i]);
    for (uint32_t i = 0; i < p->n_buckets; i++) {
        release_kernel(device, p->buckets[i].narrow);
        release_kernel(device, p->buckets[i].widen);
    }
    free(p->kernels);
    free(p->launches);
    free(p->buckets);
    plan_free(&p->plan);
    graph_free(&p->step);
    free(p);
}

static void release_memory(const runtime *r, void *memory)
{
    if (memory && memory == r->reduction_memory)
        r->options.reducer->ops->free(r->options.reducer, memory);
    else if (memory)
        r->options.device->ops->free(r->options.device, memory);
}

void runtime_close(runtime *r)
{
    backend *device = r->options.device;
    for (int i = 0; i < r->n_programs; i++)
        program_free(r->programs[i], device);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        release_memory(r, r->arena[kind]);
    release_memory(r, r->workspace);
    release_memory(r, r->narrowed_gradients);
    release_kernel(device, r->statistics_mean);
    *r = (runtime){0};
}

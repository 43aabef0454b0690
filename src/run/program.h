/* A graph made ready to run: kernels chosen, memory placed, gradients cut into buckets.
 *
 * Programs of one runtime (the step of a full batch, of the last one, the evaluation) take turns: they share one
 * arena for inputs, gradients, activations and workspace, and the store's parameters and states.
 */
#ifndef TESKD_RUN_PROGRAM_H
#define TESKD_RUN_PROGRAM_H

#include "dist/comm.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "kernels/backend.h"
#include "run/store.h"

/* A slice of the gradient arena that is complete after node `last_node`. */
typedef struct {
    size_t offset, bytes;
    uint32_t last_node;
    comm_request request;
} gradient_bucket;

typedef struct {
    graph step; /* owned */
    memory_plan plan;
    kernel **kernels; /* one a node; NULL for all_reduce */
    kernel_args *args;
    size_t workspace_bytes;
    gradient_bucket *buckets;
    uint32_t n_buckets;
} program;

enum { PROGRAMS_MAX = 8 };

typedef struct {
    backend *device;
    comm *ranks;
    store *tensors;
    size_t bucket_bytes;
    program *programs[PROGRAMS_MAX];
    int n_programs;
    void *arena[KIND_COUNT]; /* inputs, gradients, activations */
    size_t arena_bytes[KIND_COUNT];
    void *workspace;
    size_t workspace_bytes;
} runtime;

/* `device`, `ranks` and `tensors` must outlive the runtime. */
void runtime_open(runtime *r, backend *device, comm *ranks, store *tensors, size_t bucket_bytes);
void runtime_close(runtime *r);

/* Takes over the graph (also on failure), plans it and prepares its kernels. The program belongs to the runtime. */
int runtime_add(runtime *r, graph *g, program **out);

/* Allocates what the programs need and gives each node its pointers; once, after the last runtime_add. */
int runtime_bind(runtime *r);

/* Memory of a kept or input value by name, valid between runs; NULL when the program has none. */
void *program_value(const program *p, const runtime *r, const char *name, const tensor_desc **desc);

/* Runs every node once. Reductions of gradient buckets overlap the backward. `node_seconds` (one a node, added to) may
 * be NULL. After a failure reductions may still be under way in the arenas: no further run, only comm_abort and the
 * end. */
int program_run(runtime *r, program *p, double *node_seconds);

/* Wall-clock seconds from an arbitrary start. */
double run_clock(void);

#endif

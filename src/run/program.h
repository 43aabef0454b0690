/* A graph made ready to run: kernels chosen, memory placed, gradients cut into buckets.
 *
 * Programs of one runtime (the step of a full batch, of the last one, the evaluation) take turns. They share the
 * arenas of inputs, gradients and activations, the workspace, and the store's parameters and states.
 */
#ifndef TESKD_RUN_PROGRAM_H
#define TESKD_RUN_PROGRAM_H

#include "dist/reduction.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "kernels/backend.h"
#include "run/store.h"

/* A slice of the gradient arena that is complete after node `last_node`. Where the ranks exchange 16 bits it is
 * narrowed into memory of its own, summed there and widened again. */
typedef struct {
    size_t offset, bytes;
    uint32_t last_node;
    void *narrowed; /* NULL: summed where it lies */
    kernel *narrow, *widen;
} gradient_bucket;

/* One launch: of a node, or of several that follow one another (backend_ops.batch_launches). */
typedef struct {
    kernel *kernel; /* NULL for all_reduce */
    kernel_args args;
    uint32_t first_node, n_nodes;
} program_launch;

/* What the host fills before a run. */
typedef struct {
    const char *name;
    void *memory;
    size_t bytes;
} program_input;

enum { PROGRAM_INPUTS = 8 };

typedef struct {
    graph step; /* owned */
    memory_plan plan;
    kernel **kernels; /* one per node; NULL for all_reduce */
    size_t workspace_bytes;
    gradient_bucket *buckets;
    uint32_t n_buckets;
    program_launch *launches;
    uint32_t n_launches;
    program_input inputs[PROGRAM_INPUTS]; /* found when the program is bound */
    int n_inputs;
    bool updates; /* the weights; the running statistics of the ranks then come together */
    bool has_run;
    uint32_t n_waits;        /* for sums, within a run */
    captured_step *captured; /* NULL: none */
} program;

/* What fills a bucket, in bytes: `most`, or less near the ends of the gradients. The first one takes `first` and each
 * further one what lies before it; the last one is of about `last`, and each before it of what lies behind it. A
 * gradient is never divided, so a bucket may be larger. */
typedef struct {
    size_t first, most, last;
} bucket_sizes;

typedef struct {
    backend *device;
    store *tensors;
    reduction *reducer; /* NULL: one rank */
    int ranks;
    bucket_sizes buckets;
    dtype reduction_dtype;   /* one of 16 bits: gradients travel in it; any other: as they are */
    bool average_statistics; /* each rank's running statistics saw its own images only: all go on from the mean */
    bool capture;            /* capture a program when it runs the second time, where the device can */
} runtime_options;

enum { PROGRAMS_MAX = 128 }; /* kinds of micro-batches, at each size of the images */

/* Exposed communication: seconds in which the launches stood still for the sums over the ranks. */
typedef struct {
    double waiting;   /* until the sums were there that the next launch reads */
    double advancing; /* while the computing thread started sums and moved them on; 0 where the device is a GPU */
} exposed_time;

typedef struct {
    runtime_options options;
    program *programs[PROGRAMS_MAX];
    int n_programs;
    void *arena[KIND_COUNT];        /* inputs, gradients, activations */
    size_t arena_bytes[KIND_COUNT]; /* known before runtime_bind */
    void *workspace;
    size_t workspace_bytes;
    void *narrowed_gradients; /* NULL where gradients are summed as they are */
    void *reduction_memory;   /* the one of the gradients' two that options.reducer allocated; NULL: none of them */
    kernel *statistics_mean;  /* divides the summed statistics */
    kernel_args statistics_args;
    exposed_time exposed; /* since the last look, by the host's clock */
    uint32_t n_waits;     /* of the run under way, or of the last one */
    int64_t updates;      /* runs that update, since the last look */
} runtime;

/* What the options point at must outlive the runtime, the sums too: memory may be theirs. */
void runtime_open(runtime *r, const runtime_options *options);
void runtime_close(runtime *r);

/* What fills a bucket that begins after `before` bytes and has `behind` bytes after it. */
size_t bucket_enough(const bucket_sizes *sizes, size_t before, size_t behind);

/* Cuts the gradients of a program whose graph is planned; the caller frees the buckets, where no runtime has the
 * program. Needs no device. */
int buckets_cut(program *p, const bucket_sizes *sizes);

/* Takes over the graph (also on failure), plans it and prepares its kernels. The program belongs to the runtime. */
int runtime_add(runtime *r, graph *g, program **out);

/* Allocates what the programs need and gives each node its pointers; once, after the last runtime_add. Every rank calls
 * it, with gradients of as many bytes. When there is not enough memory the message names the largest values and the
 * largest batch that would fit. */
int runtime_bind(runtime *r);

/* Where a kept or input value of that name lies on the device, valid between runs; NULL when the program has none. */
void *program_value(const program *p, const runtime *r, const char *name, const tensor_desc **desc);

/* Fills the input of that name, of `bytes`; nothing happens where the program has none. The next run sees it. */
int program_write(const program *p, const runtime *r, const char *name, const void *values, size_t bytes);

/* Waits for the runs so far and gives the value of that name, of any real dtype, as float64. */
int program_read(const program *p, const runtime *r, const char *name, double *values);

/* Launches every node once. Reductions of gradient buckets overlap the backward. On a device with memory of its own it
 * returns before the work is done. After a failure reductions may still be under way in the arenas: no further run,
 * only comm_abort and the end. */
int program_run(runtime *r, program *p);

/* The same, uncaptured, waiting for the end; adds the seconds of each launch to `launch_seconds`. */
int program_run_timed(runtime *r, program *p, double *launch_seconds);

/* What has been exposed since the last call, over all runs; after runtime_synchronize. With NCCL the device's clock
 * tells of the last update alone, without the sums of synchronised batch normalisation: it stands for all of them. */
int runtime_exposed(runtime *r, exposed_time *exposed);

/* Waits until everything launched is done, watching the peers. */
int runtime_synchronize(const runtime *r);

/* Waits until `poll` says so, watching the peers: for what comes after launches, since these may wait for reductions
 * over the ranks, and such a sum may never end. */
typedef int runtime_poll(void *context, bool *done);
int runtime_await(const runtime *r, runtime_poll *poll, void *context);

#endif

/* What a device must offer: memory, and one kernel for each node of the graph.
 *
 * A backend sees nodes and tensor descriptors, never the graph. Exceptions (an algorithm that
 * is slow, a layout that a library wants) live in the backend, never in the graph.
 * Threads: one thread at a time uses a backend.
 */
#ifndef TESKD_KERNELS_BACKEND_H
#define TESKD_KERNELS_BACKEND_H

#include "graph/node.h"

typedef struct backend backend;
typedef struct kernel kernel;

/* A node with the shapes of its values; shapes of absent values are zero. */
typedef struct {
    graph_node node;
    tensor_desc in[NODE_MAX_IN];
    tensor_desc out[NODE_MAX_OUT];
    const char *label; /* which layer it belongs to, for messages */
} kernel_request;

/* Memory of one launch. Absent values have NULL. In-place ops may see in[i] == out[0].
 * `workspace` has the bytes that prepare asked for and holds nothing between launches. */
typedef struct {
    const void *in[NODE_MAX_IN];
    void *out[NODE_MAX_OUT];
    void *workspace;
} kernel_args;

typedef struct {
    const char *name;

    /* The dtype of every `real` value on this device. */
    dtype real;

    /* Chooses an algorithm for the request and says how much workspace its launches need.
     * Returns ERROR_KERNEL when there is none. The caller frees the kernel. */
    int (*prepare)(backend *self, const kernel_request *request, kernel **out, size_t *workspace_bytes);
    int (*launch)(backend *self, kernel *kernel, const kernel_args *args);
    void (*release)(backend *self, kernel *kernel);

    /* 64-byte aligned memory; contents undefined. NULL when there is not enough. */
    void *(*alloc)(backend *self, size_t bytes);
    void (*free)(backend *self, void *memory);

    /* One line for the banner and `teskd info`: libraries, versions, instruction set, threads.
     * Valid as long as the backend. */
    const char *(*description)(backend *self);

    void (*close)(backend *self);
} backend_ops;

/* Every backend begins with its table. */
struct backend {
    const backend_ops *ops;
};

/* Side-effect ops (sgd_update, bn_running) change memory that the node lists as input. */
static inline void *kernel_in_out(const kernel_args *args, int index)
{
    return (void *)(uintptr_t)args->in[index];
}

/* The oracle: every op in plain C in float64. `threads` >= 1 is what its BLAS may use. */
int backend_reference_open(backend **out, int threads);

/* Which of its builds the CPU backend's own loops use. */
typedef enum { CPU_ISA_AUTO, CPU_ISA_BASELINE, CPU_ISA_AVX2, CPU_ISA_AVX512 } cpu_isa;

/* oneDNN and own loops, float32. `threads` >= 1. An ISA that this processor lacks is refused. */
int backend_cpu_open(backend **out, int threads, cpu_isa isa);

#endif

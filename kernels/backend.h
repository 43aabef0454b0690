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
typedef struct captured_step captured_step; /* launches kept to be run again */

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

/* Who notes times, so that one does not overwrite another's. */
typedef enum { TIMES_OF_LAUNCHES, TIMES_OF_WAITS, TIMESTAMP_ROWS } timestamp_row;

typedef struct {
    const char *name;

    /* The dtype of parameters, their gradients, states and, unless `activation` differs, of all else that is real. */
    dtype real;

    /* The dtype of activations and of what products read: `real`, or one of 16 bits. */
    dtype activation;

    /* What the relative L2 error of an op may be, against float64 on the same inputs. */
    double op_error;

    /* The host may touch the device's memory, and a launch is done when it returns. Elsewhere launches and copies are
     * done in the order of the calls, some time later, and an error may come from a later call. */
    bool host_memory;

    /* Batch normalisation and concat_linear heed the row_stride and the patch of a tensor (graph/placement.h). */
    bool placed_rows;

    /* conv2d and concat_linear can give the sums of their result, bn_grad_sums and its like the parameters' gradients,
     * max_pool the choices that its gradient reads (graph/fusion.h). */
    bool fuses;

    /* The device would rather have images of PADDED_IMAGE_CHANNELS than of 3. */
    bool pads_images;

    /* Chooses an algorithm for the request and says how much workspace its launches need.
     * Returns ERROR_KERNEL when there is none. The caller frees the kernel. */
    int (*prepare)(backend *self, const kernel_request *request, kernel **out, size_t *workspace_bytes);
    int (*launch)(backend *self, kernel *kernel, const kernel_args *args);
    void (*release)(backend *self, kernel *kernel);

    /* Optional. One kernel for `n` nodes that follow one another, launched with the args NULL. They are of the same op,
     * or of any for which op_is_loss holds; then none writes memory that another reads or writes. `*out` stays NULL
     * where they are better launched one by one. */
    int (*batch_launches)(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out);

    /* 256-byte aligned memory (64 on the CPU); contents undefined. NULL when there is not enough. */
    void *(*alloc)(backend *self, size_t bytes);
    void (*free)(backend *self, void *memory);

    /* Free bytes of the device's memory. Optional. */
    int (*free_bytes)(backend *self, size_t *bytes);

    /* Copies in order with the launches. After `write` the source may change; `read` waits. */
    int (*write)(backend *self, void *device, const void *host, size_t bytes);
    int (*read)(backend *self, void *host, const void *device, size_t bytes);
    int (*copy)(backend *self, void *to, const void *from, size_t bytes); /* within the device */
    int (*zero)(backend *self, void *device, size_t bytes);

    /* Optional. Whether a write of so many bytes would return now, or only when launches are done. */
    int (*write_ready)(backend *self, size_t bytes, bool *ready);

    /* Waits until everything is done; returns the first error of it. */
    int (*synchronize)(backend *self);

    /* Optional. What is launched (and reduced, see dist/reduction.h) between begin and end is kept and not run; replay
     * runs it. After a failure inside, end still has to be called: it returns the error and no capture. */
    int (*capture_begin)(backend *self);
    int (*capture_end)(backend *self, captured_step **out);
    int (*replay)(backend *self, captured_step *r);
    void (*release_captured)(backend *self, captured_step *r);

    /* Optional. Notes the time at which the launches so far are done, under a number from 0 on in a row of timestamps;
     * `elapsed` waits and gives the seconds between the row's first `n` timestamps (n - 1 of them). One that is
     * captured is noted by every replay. */
    int (*timestamp)(backend *self, timestamp_row row, uint32_t number);
    int (*elapsed)(backend *self, timestamp_row row, uint32_t n, double *seconds);

    /* Optional: copies that run beside the launches, in numbered lanes. `upload` starts when the launches before the
     * lane's last upload_release are done; launches after upload_use see the copied bytes; after upload_done
     * has said so the host memory may change again. `host` is memory of alloc_pinned. */
    void *(*alloc_pinned)(backend *self, size_t bytes);
    void (*free_pinned)(backend *self, void *memory);
    int (*upload)(backend *self, int lane, void *device, const void *host, size_t bytes);
    int (*upload_use)(backend *self, int lane);
    int (*upload_release)(backend *self, int lane);
    int (*upload_done)(backend *self, int lane, bool *done);

    /* Optional. Where the device is attached to this host: "0000:65:00.0", whatever its number among those that the
     * process sees. Valid as long as the backend. */
    const char *(*pci_address)(backend *self);

    /* One line for the banner and `teskd info`: libraries, versions, instruction set, threads.
     * Valid as long as the backend. */
    const char *(*description)(backend *self);

    void (*close)(backend *self);
} backend_ops;

enum { UPLOAD_LANES = 4, PADDED_IMAGE_CHANNELS = 8 };

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

/* Which of its builds the CPU backend's native loops use. */
typedef enum { CPU_ISA_AUTO, CPU_ISA_BASELINE, CPU_ISA_AVX2, CPU_ISA_AVX512 } cpu_isa;

/* oneDNN and native loops, float32. `threads` >= 1. An ISA that this processor lacks is refused. */
int backend_cpu_open(backend **out, int threads, cpu_isa isa);

#endif

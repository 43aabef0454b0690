/* Thin helpers over the oneDNN C API: statuses become messages, primitives become calls.
 *
 * A call is made once and executed many times; executing it allocates nothing of ours.
 */
#ifndef TESKD_KERNELS_CPU_ONEDNN_H
#define TESKD_KERNELS_CPU_ONEDNN_H

#include <dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ONEDNN_MAX_ARGS = 5 };

/* A primitive with a memory object for each argument; `scratch_bytes` is what its scratchpad needs. */
typedef struct {
    dnnl_primitive_t primitive; /* NULL: no call */
    int count;
    dnnl_exec_arg_t arg[ONEDNN_MAX_ARGS];
    size_t scratch_bytes;
} onednn_call;

/* 0, or ERROR_KERNEL with "<what>: <status>". */
int onednn_check(dnnl_status_t status, const char *what);

/* float32 in a plain layout: the first `rank` of `dim`, elements `stride` apart. */
int onednn_strided(dnnl_memory_desc_t *out, int rank, const int64_t *dim, const int64_t *stride);

/* float32 in the layout that the primitive likes best. */
int onednn_any(dnnl_memory_desc_t *out, int rank, const int64_t *dim);

/* An attribute with the scratchpad in the caller's hands and, if asked, the result added to what is there, and then a
 * ReLU. */
int onednn_attribute(dnnl_primitive_attr_t *out, bool accumulate, bool relu);

/* Makes the primitive of `desc` (which stays the caller's) with the arguments `id[0..count)`. */
int onednn_call_create(onednn_call *out, dnnl_engine_t engine, const_dnnl_primitive_desc_t desc, int count,
                       const int *id);

/* Makes a reorder; leaves `out` empty when the two layouts are the same. */
int onednn_reorder_create(onednn_call *out, dnnl_engine_t engine, const dnnl_memory_desc_t *from,
                          const dnnl_memory_desc_t *to);

/* Executes with one buffer an argument, in the order of creation. */
int onednn_call_run(const onednn_call *call, dnnl_stream_t stream, const void *const *buffer, void *scratch);

void onednn_call_destroy(onednn_call *call);

#endif

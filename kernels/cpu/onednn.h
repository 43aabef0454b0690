/* Thin helpers over the oneDNN C API, versions 2.6 and 3: statuses become messages, primitives become calls.
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

/* A handle of a tensor's shape and layout. It is the creator's, who destroys it. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t onednn_layout;
typedef const_dnnl_memory_desc_t const_onednn_layout;
#else
typedef dnnl_memory_desc_t *onednn_layout;
typedef const dnnl_memory_desc_t *const_onednn_layout;
#endif

/* c = a b, plus a row `bias` (NULL: none). */
typedef struct {
    const_onednn_layout a, b, c, bias;
} onednn_matmul;

/* A convolution in one direction; a tensor's layout is also that of its gradient. `bias` may be NULL. */
typedef struct {
    dnnl_prop_kind_t direction; /* dnnl_forward_training, dnnl_backward_data, dnnl_backward_weights */
    onednn_layout src, weight, bias, dst;
    dnnl_dims_t stride, pad;
    int64_t channels, map; /* of src; the longer side of dst */
} onednn_convolution;

/* Whether an implementation that oneDNN offers for a convolution is not to be taken. */
typedef bool onednn_refuses(const onednn_convolution *convolution, const_dnnl_primitive_desc_t offered);

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
int onednn_strided(onednn_layout *out, int rank, const int64_t *dim, const int64_t *stride);

/* float32 in the layout that the primitive likes best. */
int onednn_any(onednn_layout *out, int rank, const int64_t *dim);

/* NULL is fine. */
void onednn_layout_destroy(onednn_layout layout);

/* Describes the product; if asked, the result is added to what is there, and then goes through a ReLU. The caller
 * destroys `*out`. */
int onednn_matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_matmul *matmul, bool accumulate,
                       bool relu);

/* Describes the convolution by oneDNN's first implementation that is not refused; the last ones are plain C. `forward`
 * describes its forward, which a backward needs, and is NULL for a forward. The caller destroys `*out`. */
int onednn_convolution_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_convolution *convolution,
                            const_dnnl_primitive_desc_t forward, onednn_refuses *refuses);

/* Makes the primitive of `desc` (which stays the caller's) with the arguments `id[0..count)`. */
int onednn_call_create(onednn_call *out, dnnl_engine_t engine, const_dnnl_primitive_desc_t desc, int count,
                       const int *id);

/* Makes a reorder; leaves `out` empty when the two layouts are the same. */
int onednn_reorder_create(onednn_call *out, dnnl_engine_t engine, const_onednn_layout from, const_onednn_layout to);

/* Executes with one buffer per argument, in the order of creation. */
int onednn_call_run(const onednn_call *call, dnnl_stream_t stream, const void *const *buffer, void *scratch);

void onednn_call_destroy(onednn_call *call);

/* The instructions that oneDNN uses, as a name for people. */
const char *onednn_isa_name(void);

#endif

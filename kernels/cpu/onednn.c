/* oneDNN calls. Owns the primitives and memory objects of a call; buffers are always the caller's.
 * Threads: as the backend, one at a time (a run points the shared memory objects at its buffers). */
#include "onednn_version.h"

#include "base/error.h"

#include <dnnl_debug.h>
#include <string.h>

int onednn_check(dnnl_status_t status, const char *what)
{
    return status == dnnl_success ? 0 : error_set(ERROR_KERNEL, "oneDNN: %s: %s", what, dnnl_status2str(status));
}

int onednn_strided(onednn_layout *out, int rank, const int64_t *dim, const int64_t *stride)
{
    return onednn_check(layout_strided(out, rank, dim, stride), "plain layout");
}

int onednn_any(onednn_layout *out, int rank, const int64_t *dim)
{
    return onednn_check(layout_any(out, rank, dim), "any layout");
}

void onednn_layout_destroy(onednn_layout layout)
{
    if (layout)
        layout_destroy(layout);
}

static dnnl_status_t add_post_ops(dnnl_primitive_attr_t attribute, bool accumulate, bool relu)
{
    dnnl_post_ops_t post = NULL;
    dnnl_status_t status = dnnl_post_ops_create(&post);
    if (status == dnnl_success && accumulate)
        status = append_sum(post);
    if (status == dnnl_success && relu)
        status = append_relu(post);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attribute, post);
    if (post)
        dnnl_post_ops_destroy(post);
    return status;
}

/* An attribute with the scratchpad in the caller's hands and, if asked, the result added to what is there, and then a
 * ReLU. */
static int create_attribute(dnnl_primitive_attr_t *out, bool accumulate, bool relu)
{
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status != dnnl_success)
        return onednn_check(status, "attribute");
    status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && (accumulate || relu))
        status = add_post_ops(*out, accumulate, relu);
    if (status != dnnl_success)
        dnnl_primitive_attr_destroy(*out);
    return onednn_check(status, "attribute");
}

int onednn_matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_matmul *matmul, bool accumulate,
                       bool relu)
{
    dnnl_primitive_attr_t attribute;
    TRY(create_attribute(&attribute, accumulate, relu));
    int code = onednn_check(describe_matmul(out, engine, matmul, attribute), "matmul");
    dnnl_primitive_attr_destroy(attribute);
    return code;
}

int onednn_convolution_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_convolution *convolution,
                            const_dnnl_primitive_desc_t forward, onednn_refuses *refuses)
{
    dnnl_primitive_attr_t attribute;
    TRY(create_attribute(&attribute, false, false));
    int code = onednn_check(choose_convolution(out, engine, convolution, forward, attribute, refuses), "convolution");
    dnnl_primitive_attr_destroy(attribute);
    return code;
}

int onednn_call_create(onednn_call *out, dnnl_engine_t engine, const_dnnl_primitive_desc_t desc, int count,
                       const int *id)
{
    memset(out, 0, sizeof *out);
    CHECK(count < ONEDNN_MAX_ARGS, ERROR_INTERNAL, "a oneDNN call of %d arguments", count);
    dnnl_status_t status = dnnl_primitive_create(&out->primitive, desc);
    for (int i = 0; status == dnnl_success && i <= count; i++) {
        int arg = i < count ? id[i] : DNNL_ARG_SCRATCHPAD;
        const_onednn_layout md = dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, arg);
        if (!md) {
            status = dnnl_invalid_arguments;
            break;
        }
        if (i == count)
            out->scratch_bytes = dnnl_memory_desc_get_size(md);
        status = dnnl_memory_create(&out->arg[i].memory, md, engine, DNNL_MEMORY_NONE);
        if (status == dnnl_success) {
            out->arg[i].arg = arg;
            out->count = i + 1;
        }
    }
    if (status != dnnl_success)
        onednn_call_destroy(out);
    return onednn_check(status, "primitive");
}

int onednn_reorder_create(onednn_call *out, dnnl_engine_t engine, const_onednn_layout from, const_onednn_layout to)
{
    static const int id[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    dnnl_primitive_attr_t attribute = NULL;
    dnnl_primitive_desc_t desc = NULL;
    memset(out, 0, sizeof *out);
    if (dnnl_memory_desc_equal(from, to))
        return 0;
    TRY(create_attribute(&attribute, false, false));
    int code = onednn_check(dnnl_reorder_primitive_desc_create(&desc, from, engine, to, engine, attribute), "reorder");
    if (code == 0)
        code = onednn_call_create(out, engine, desc, 2, id);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    dnnl_primitive_attr_destroy(attribute);
    return code;
}

int onednn_call_run(const onednn_call *call, dnnl_stream_t stream, const void *const *buffer, void *scratch)
{
    for (int i = 0; i < call->count; i++) {
        /* The C API has no const handles; a source is only read. */
        void *handle = i + 1 < call->count ? (void *)(uintptr_t)buffer[i] : scratch;
        TRY(onednn_check(set_buffer(call->arg[i].memory, handle, stream), "buffer"));
    }
    TRY(onednn_check(dnnl_primitive_execute(call->primitive, stream, call->count, call->arg), "execution"));
    return onednn_check(dnnl_stream_wait(stream), "execution");
}

void onednn_call_destroy(onednn_call *call)
{
    for (int i = 0; i < call->count; i++)
        dnnl_memory_destroy(call->arg[i].memory);
    if (call->primitive)
        dnnl_primitive_destroy(call->primitive);
    memset(call, 0, sizeof *call);
}

const char *onednn_isa_name(void)
{
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    if (isa == isa_unlimited)
        return "no limit";
    switch (isa) {
    case dnnl_cpu_isa_sse41:
        return "SSE4.1";
    case dnnl_cpu_isa_avx:
        return "AVX";
    case dnnl_cpu_isa_avx2:
    case dnnl_cpu_isa_avx2_vnni:
        return "AVX2";
    case dnnl_cpu_isa_avx512_core:
        return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni:
        return "AVX-512 VNNI";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "AVX-512 BF16";
    default:
        return isa < dnnl_cpu_isa_avx512_core ? "AVX2" : "AVX-512 and more";
    }
}

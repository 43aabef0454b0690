/* oneDNN calls. Owns the primitives and memory objects of a call; buffers are always the caller's.
 * Threads: as the backend, one at a time (a run points the shared memory objects at its buffers). */
#include "onednn.h"

#include "base/error.h"

#include <string.h>

int onednn_check(dnnl_status_t status, const char *what)
{
    static const char *const text[] = {"success",       "out of memory", "invalid arguments", "unimplemented",
                                       "iterator ends", "runtime error", "not required"};
    if (status == dnnl_success)
        return 0;
    int known = (int)status >= 0 && (size_t)status < sizeof text / sizeof *text;
    return error_set(ERROR_KERNEL, "oneDNN: %s: %s", what, known ? text[status] : "unknown status");
}

int onednn_strided(dnnl_memory_desc_t *out, int rank, const int64_t *dim, const int64_t *stride)
{
    return onednn_check(dnnl_memory_desc_init_by_strides(out, rank, dim, dnnl_f32, stride), "plain layout");
}

int onednn_any(dnnl_memory_desc_t *out, int rank, const int64_t *dim)
{
    return onednn_check(dnnl_memory_desc_init_by_tag(out, rank, dim, dnnl_f32, dnnl_format_tag_any), "any layout");
}

int onednn_attribute(dnnl_primitive_attr_t *out, bool accumulate, bool relu)
{
    dnnl_post_ops_t post = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status != dnnl_success)
        return onednn_check(status, "attribute");
    status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && (accumulate || relu)) {
        status = dnnl_post_ops_create(&post);
        if (status == dnnl_success && accumulate)
            status = dnnl_post_ops_append_sum(post, 1.0F);
        if (status == dnnl_success && relu)
            status = dnnl_post_ops_append_eltwise(post, 1.0F, dnnl_eltwise_relu, 0.0F, 0.0F);
        if (status == dnnl_success)
            status = dnnl_primitive_attr_set_post_ops(*out, post);
        dnnl_post_ops_destroy(post);
    }
    if (status != dnnl_success) {
        dnnl_primitive_attr_destroy(*out);
        *out = NULL;
    }
    return onednn_check(status, "attribute");
}

int onednn_call_create(onednn_call *out, dnnl_engine_t engine, const_dnnl_primitive_desc_t desc, int count,
                       const int *id)
{
    memset(out, 0, sizeof *out);
    CHECK(count < ONEDNN_MAX_ARGS, ERROR_INTERNAL, "a oneDNN call of %d arguments", count);
    dnnl_status_t status = dnnl_primitive_create(&out->primitive, desc);
    for (int i = 0; status == dnnl_success && i <= count; i++) {
        int arg = i < count ? id[i] : DNNL_ARG_SCRATCHPAD;
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, arg);
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

int onednn_reorder_create(onednn_call *out, dnnl_engine_t engine, const dnnl_memory_desc_t *from,
                          const dnnl_memory_desc_t *to)
{
    static const int id[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    dnnl_primitive_attr_t attribute = NULL;
    dnnl_primitive_desc_t desc = NULL;
    memset(out, 0, sizeof *out);
    if (dnnl_memory_desc_equal(from, to))
        return 0;
    TRY(onednn_attribute(&attribute, false, false));
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
        TRY(onednn_check(dnnl_memory_set_data_handle_v2(call->arg[i].memory, handle, stream), "buffer"));
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

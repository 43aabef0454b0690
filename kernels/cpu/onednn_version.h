/* What differs between oneDNN 2 and oneDNN 3, as functions that follow version 3. There a layout is a handle that is
 * created and destroyed, and a primitive is described in one call. Private to onednn.c; beside the type of a handle in
 * onednn.h, nothing else asks for the version. Owns no state. */
#ifndef TESKD_KERNELS_CPU_ONEDNN_VERSION_H
#define TESKD_KERNELS_CPU_ONEDNN_VERSION_H

#include "onednn.h"

#include <stdlib.h>

#if DNNL_VERSION_MAJOR >= 3

static const dnnl_cpu_isa_t isa_unlimited = dnnl_cpu_isa_default;

static inline dnnl_status_t layout_strided(onednn_layout *out, int rank, const int64_t *dim, const int64_t *stride)
{
    return dnnl_memory_desc_create_with_strides(out, rank, dim, dnnl_f32, stride);
}

static inline dnnl_status_t layout_any(onednn_layout *out, int rank, const int64_t *dim)
{
    return dnnl_memory_desc_create_with_tag(out, rank, dim, dnnl_f32, dnnl_format_tag_any);
}

static inline void layout_destroy(onednn_layout layout)
{
    dnnl_memory_desc_destroy(layout);
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_sum(post, 1.0F, 0, dnnl_data_type_undef);
}

static inline dnnl_status_t append_relu(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_eltwise(post, dnnl_eltwise_relu, 0.0F, 0.0F);
}

static inline dnnl_status_t set_buffer(dnnl_memory_t memory, void *buffer, dnnl_stream_t stream)
{
    (void)stream;
    return dnnl_memory_set_data_handle(memory, buffer);
}

static inline dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_matmul *m,
                                            const_dnnl_primitive_attr_t attribute)
{
    return dnnl_matmul_primitive_desc_create(out, engine, m->a, m->b, m->bias, m->c, attribute);
}

static inline dnnl_status_t describe_convolution(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                                 const onednn_convolution *c, const_dnnl_primitive_desc_t forward,
                                                 const_dnnl_primitive_attr_t attribute)
{
    switch (c->direction) {
    case dnnl_backward_data:
        return dnnl_convolution_backward_data_primitive_desc_create(out, engine, dnnl_convolution_direct, c->src,
                                                                    c->weight, c->dst, c->stride, NULL, c->pad, c->pad,
                                                                    forward, attribute);
    case dnnl_backward_weights:
        return dnnl_convolution_backward_weights_primitive_desc_create(out, engine, dnnl_convolution_direct, c->src,
                                                                       c->weight, c->bias, c->dst, c->stride, NULL,
                                                                       c->pad, c->pad, forward, attribute);
    default:
        return dnnl_convolution_forward_primitive_desc_create(out, engine, c->direction, dnnl_convolution_direct,
                                                              c->src, c->weight, c->bias, c->dst, c->stride, NULL,
                                                              c->pad, c->pad, attribute);
    }
}

/* oneDNN's first implementation that `refuses` lets pass, or the last one. */
static inline dnnl_status_t choose_convolution(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                               const onednn_convolution *c, const_dnnl_primitive_desc_t forward,
                                               const_dnnl_primitive_attr_t attribute, onednn_refuses *refuses)
{
    dnnl_status_t status = describe_convolution(out, engine, c, forward, attribute);
    while (status == dnnl_success && refuses(c, *out) && dnnl_primitive_desc_next_impl(*out) == dnnl_success) {
    }
    return status;
}

#else

static const dnnl_cpu_isa_t isa_unlimited = dnnl_cpu_isa_all;

static inline void layout_destroy(onednn_layout layout)
{
    free(layout);
}

/* Takes the layout away again where it could not be described. */
static inline dnnl_status_t keep_layout(onednn_layout *out, dnnl_status_t status)
{
    if (status == dnnl_success)
        return status;
    free(*out);
    *out = NULL;
    return status;
}

static inline dnnl_status_t layout_strided(onednn_layout *out, int rank, const int64_t *dim, const int64_t *stride)
{
    *out = malloc(sizeof **out);
    if (!*out)
        return dnnl_out_of_memory;
    return keep_layout(out, dnnl_memory_desc_init_by_strides(*out, rank, dim, dnnl_f32, stride));
}

static inline dnnl_status_t layout_any(onednn_layout *out, int rank, const int64_t *dim)
{
    *out = malloc(sizeof **out);
    if (!*out)
        return dnnl_out_of_memory;
    return keep_layout(out, dnnl_memory_desc_init_by_tag(*out, rank, dim, dnnl_f32, dnnl_format_tag_any));
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_sum(post, 1.0F);
}

static inline dnnl_status_t append_relu(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_eltwise(post, 1.0F, dnnl_eltwise_relu, 0.0F, 0.0F);
}

static inline dnnl_status_t set_buffer(dnnl_memory_t memory, void *buffer, dnnl_stream_t stream)
{
    return dnnl_memory_set_data_handle_v2(memory, buffer, stream);
}

static inline dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const onednn_matmul *m,
                                            const_dnnl_primitive_attr_t attribute)
{
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, m->a, m->b, m->bias, m->c);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &desc, attribute, engine, NULL) : status;
}

static inline dnnl_status_t describe_convolution(dnnl_convolution_desc_t *out, const onednn_convolution *c)
{
    switch (c->direction) {
    case dnnl_backward_data:
        return dnnl_convolution_backward_data_desc_init(out, dnnl_convolution_direct, c->src, c->weight, c->dst,
                                                        c->stride, c->pad, c->pad);
    case dnnl_backward_weights:
        return dnnl_convolution_backward_weights_desc_init(out, dnnl_convolution_direct, c->src, c->weight, c->bias,
                                                           c->dst, c->stride, c->pad, c->pad);
    default:
        return dnnl_convolution_forward_desc_init(out, c->direction, dnnl_convolution_direct, c->src, c->weight,
                                                  c->bias, c->dst, c->stride, c->pad, c->pad);
    }
}

static inline dnnl_status_t choose_convolution(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                               const onednn_convolution *c, const_dnnl_primitive_desc_t forward,
                                               const_dnnl_primitive_attr_t attribute, onednn_refuses *refuses)
{
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_iterator_t iterator = NULL;
    dnnl_status_t status = describe_convolution(&desc, c);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_iterator_create(&iterator, &desc, attribute, engine, forward);
    if (status != dnnl_success)
        return status;
    *out = dnnl_primitive_desc_iterator_fetch(iterator);
    while (*out && refuses(c, *out) && dnnl_primitive_desc_iterator_next(iterator) == dnnl_success) {
        dnnl_primitive_desc_destroy(*out);
        *out = dnnl_primitive_desc_iterator_fetch(iterator);
    }
    dnnl_primitive_desc_iterator_destroy(iterator);
    return *out ? dnnl_success : dnnl_out_of_memory;
}

#endif

#endif

/* Owns the layers: parameters with their initialisation, and the nodes that use them. One thread. */
#include "model/layers.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>

static const double bn_eps = 1e-5, bn_momentum = 0.1;

int32_t channels_of(const builder *b, value_id x)
{
    return graph_desc(b->g, x)->dim[3];
}

static value_id parameter(builder *b, const char *layer, const char *suffix, tensor_layout layout, const int32_t dim[4],
                          init_kind kind, double scale)
{
    char name[2 * GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", layer, suffix);
    value_id value = graph_parameter(b->g, name, layout, dim);
    model *m = b->m;
    parameter_init *inits = realloc(m->inits, (m->n_inits + 1) * sizeof *inits);
    if (!inits) {
        graph_fail(b->g, ERROR_MEMORY, "no memory for the parameter %s", name);
        return VALUE_NONE;
    }
    m->inits = inits;
    m->inits[m->n_inits++] = (parameter_init){value, kind, scale};
    return value;
}

/* PyTorch's default (kaiming-uniform, a = sqrt 5) is uniform within 1/sqrt(fan_in), weight and bias alike. */
static double default_bound(int64_t fan_in)
{
    return 1 / sqrt((double)fan_in);
}

static value_id bias_parameter(builder *b, const char *name, int32_t count, double bound)
{
    const int32_t dim[4] = {1, 1, 1, count};
    if (b->init.zero_biases)
        return parameter(b, name, "bias", LAYOUT_C, dim, INIT_CONSTANT, 0);
    return parameter(b, name, "bias", LAYOUT_C, dim, INIT_UNIFORM, bound);
}

value_id layer_conv(builder *b, const char *name, value_id x, conv_shape shape)
{
    int32_t k = shape.kernel, groups = shape.groups ? shape.groups : 1;
    int32_t c = x == b->m->input ? IMAGE_CHANNELS : channels_of(b, x);
    graph_scope(b->g, "%s", name);
    if (c % groups != 0 || shape.out_channels % groups != 0 || c < groups)
        graph_fail(b->g, ERROR_SHAPE, "%s: %d channels in and %d out do not divide into %d groups", name, c,
                   shape.out_channels, groups);
    const int32_t dim[4] = {shape.out_channels, k, k, c / groups};
    double bound = default_bound((int64_t)k * k * (c / groups));
    double deviation = sqrt(2.0 / ((double)k * k * shape.out_channels));
    value_id weight = b->init.normal_convolutions
                          ? parameter(b, name, "weight", LAYOUT_OHWI, dim, INIT_NORMAL, deviation)
                          : parameter(b, name, "weight", LAYOUT_OHWI, dim, INIT_UNIFORM, bound);
    value_id bias = shape.bias ? bias_parameter(b, name, shape.out_channels, bound) : VALUE_NONE;
    const op_attr padding = {.channels = channels_of(b, x)};
    if (padding.channels > c) /* channels of zeros have no weights */
        weight = graph_apply(b->g, OP_PAD_CHANNELS, &padding, 1, &weight);
    op_attr attr = {.kernel = k, .stride = shape.stride, .pad = shape.pad, .groups = groups};
    return graph_apply(b->g, OP_CONV2D, &attr, shape.bias ? 3 : 2, (value_id[]){x, weight, bias});
}

value_id layer_linear(builder *b, const char *name, value_id x, int32_t out_features)
{
    int32_t c = channels_of(b, x);
    const int32_t dim[4] = {out_features, 1, 1, c};
    graph_scope(b->g, "%s", name);
    value_id weight = b->init.normal_linears
                          ? parameter(b, name, "weight", LAYOUT_OI, dim, INIT_NORMAL, 0.01)
                          : parameter(b, name, "weight", LAYOUT_OI, dim, INIT_UNIFORM, default_bound(c));
    value_id bias = bias_parameter(b, name, out_features, default_bound(c));
    return graph_apply(b->g, OP_LINEAR, NULL, 3, (value_id[]){x, weight, bias});
}

static value_id running(builder *b, const char *layer, const char *suffix, const int32_t dim[4])
{
    char name[2 * GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", layer, suffix);
    return graph_state(b->g, name, LAYOUT_C, dim);
}

value_id layer_batch_norm(builder *b, const char *name, value_id x, value_id residual, bool relu)
{
    const int32_t dim[4] = {1, 1, 1, channels_of(b, x)};
    graph_scope(b->g, "%s", name);
    value_id gamma = parameter(b, name, "weight", LAYOUT_C, dim, INIT_CONSTANT, 1);
    value_id beta = parameter(b, name, "bias", LAYOUT_C, dim, INIT_CONSTANT, 0);
    value_id mean = running(b, name, "running_mean", dim), var = running(b, name, "running_var", dim);
    op_attr attr = {.eps = bn_eps, .momentum = bn_momentum, .relu = relu};
    if (!b->shape->training)
        return graph_apply(b->g, OP_BN_INFERENCE, &attr, residual ? 6 : 5,
                           (value_id[]){x, mean, var, gamma, beta, residual});

    const tensor_desc *desc = graph_desc(b->g, x);
    int32_t images = b->shape->sync_bn ? b->shape->global_batch : b->shape->batch;
    attr.count = (double)images * desc->dim[1] * desc->dim[2];
    value_id sums = graph_apply(b->g, OP_BN_SUMS, &attr, 1, &x);
    if (b->shape->sync_bn)
        graph_apply(b->g, OP_ALL_REDUCE, NULL, 1, &sums);
    graph_apply(b->g, OP_BN_RUNNING, &attr, 3, (value_id[]){sums, mean, var});
    return graph_apply(b->g, OP_BN_NORMALIZE, &attr, residual ? 5 : 4, (value_id[]){x, sums, gamma, beta, residual});
}

static value_id conv_bn(builder *b, const char *name, int first, value_id x, conv_shape shape, bool relu)
{
    char part[2 * GRAPH_NAME_BYTES];
    snprintf(part, sizeof part, "%s.%d", name, first);
    value_id y = layer_conv(b, part, x, shape);
    snprintf(part, sizeof part, "%s.%d", name, first + 1);
    return layer_batch_norm(b, part, y, VALUE_NONE, relu);
}

value_id layer_conv_bn_relu(builder *b, const char *name, int first, value_id x, conv_shape shape)
{
    return conv_bn(b, name, first, x, shape, true);
}

value_id layer_conv_bn(builder *b, const char *name, int first, value_id x, conv_shape shape)
{
    return conv_bn(b, name, first, x, shape, false);
}

value_id layer_relu(builder *b, value_id x)
{
    return graph_apply(b->g, OP_RELU, NULL, 1, &x);
}

value_id layer_max_pool(builder *b, value_id x, int32_t kernel, int32_t stride, int32_t pad)
{
    op_attr attr = {.kernel = kernel, .stride = stride, .pad = pad};
    return graph_apply(b->g, OP_MAX_POOL, &attr, 1, &x);
}

value_id layer_global_average_pool(builder *b, value_id x)
{
    return graph_apply(b->g, OP_GLOBAL_AVERAGE_POOL, NULL, 1, &x);
}

int32_t base_width(const builder *b)
{
    return b->options->width ? b->options->width : b->options->network->width;
}

int32_t stage_blocks(const builder *b, int stage)
{
    int32_t wanted = b->options->blocks[stage];
    return wanted ? wanted : b->options->network->blocks[stage];
}

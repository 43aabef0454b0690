/* Owns the ResNet and ResNeXt backbones: stem, four stages of residual blocks, classifier. One thread. */
#include "model/layers.h"

enum { EXPANSION = 4, RESNEXT_GROUPS = 32, LARGE_INPUT = 64 };

static value_id named_conv(builder *b, const char *prefix, const char *part, value_id x, conv_shape shape)
{
    char name[2 * GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", prefix, part);
    return layer_conv(b, name, x, shape);
}

static value_id named_bn(builder *b, const char *prefix, const char *part, value_id x, value_id residual, bool relu)
{
    char name[2 * GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", prefix, part);
    return layer_batch_norm(b, name, x, residual, relu);
}

/* The identity, or a 1x1 convolution with norm where the shape changes. */
static value_id shortcut(builder *b, const char *prefix, value_id x, int32_t out_channels, int32_t stride)
{
    if (stride == 1 && channels_of(b, x) == out_channels)
        return x;
    value_id y = named_conv(b, prefix, "downsample.0", x, (conv_shape){out_channels, 1, stride, 0, false, 1});
    return named_bn(b, prefix, "downsample.1", y, VALUE_NONE, false);
}

static bool is_resnext(const builder *b)
{
    return b->options->network->family == FAMILY_RESNEXT;
}

/* ResNeXt's basic block has twice the width inside, but no groups. */
static value_id basic_block(builder *b, const char *prefix, value_id x, int32_t width, int32_t stride)
{
    int32_t inner = is_resnext(b) ? 2 * width : width;
    value_id y = named_conv(b, prefix, "conv1", x, (conv_shape){inner, 3, stride, 1, false, 1});
    y = named_bn(b, prefix, "bn1", y, VALUE_NONE, true);
    y = named_conv(b, prefix, "conv2", y, (conv_shape){width, 3, 1, 1, false, 1});
    return named_bn(b, prefix, "bn2", y, shortcut(b, prefix, x, width, stride), true);
}

static value_id bottleneck(builder *b, const char *prefix, value_id x, int32_t width, int32_t stride)
{
    int32_t inner = is_resnext(b) ? 2 * width : width, groups = is_resnext(b) ? RESNEXT_GROUPS : 1;
    int32_t out = EXPANSION * width;
    value_id y = named_conv(b, prefix, "conv1", x, (conv_shape){inner, 1, 1, 0, false, 1});
    y = named_bn(b, prefix, "bn1", y, VALUE_NONE, true);
    y = named_conv(b, prefix, "conv2", y, (conv_shape){inner, 3, stride, 1, false, groups});
    y = named_bn(b, prefix, "bn2", y, VALUE_NONE, true);
    y = named_conv(b, prefix, "conv3", y, (conv_shape){out, 1, 1, 0, false, 1});
    return named_bn(b, prefix, "bn3", y, shortcut(b, prefix, x, out, stride), true);
}

static value_id build_stage(builder *b, int stage, value_id x, int32_t width)
{
    for (int i = 0; i < stage_blocks(b, stage); i++) {
        char prefix[GRAPH_NAME_BYTES];
        int32_t stride = i == 0 && stage > 0 ? 2 : 1;
        snprintf(prefix, sizeof prefix, "layer%d.%d", stage + 1, i);
        x = b->options->network->block == BLOCK_BASIC ? basic_block(b, prefix, x, width, stride)
                                                      : bottleneck(b, prefix, x, width, stride);
    }
    return x;
}

static value_id build_stem(builder *b, int32_t width)
{
    bool large = b->options->network->input >= LARGE_INPUT;
    conv_shape shape = large ? (conv_shape){width, 7, 2, 3, false, 1} : (conv_shape){width, 3, 1, 1, false, 1};
    value_id x = layer_conv(b, is_resnext(b) ? "conv1.0" : "conv1", b->m->input, shape);
    x = layer_batch_norm(b, "bn1", x, VALUE_NONE, true);
    return large ? layer_max_pool(b, x, 3, 2, 1) : x;
}

void build_residual(builder *b)
{
    int32_t width = base_width(b);
    value_id x = build_stem(b, width);
    for (int stage = 0; stage < STAGES; stage++) {
        x = build_stage(b, stage, x, width << stage);
        b->m->stages[stage] = x;
    }
    b->m->features[0] = layer_global_average_pool(b, x);
    b->m->logits[0] = layer_linear(b, "fc", b->m->features[0], b->options->classes);
}

/* Owns the SE-ResNet backbones: residual blocks whose branch ends in a ReLU and is then weighted by channel, the
 * weights from the branch's own mean, before the shortcut is added. One thread. */
#include "model/layers.h"

enum { EXPANSION = 4, REDUCTION = 16 };

static value_id shortcut(builder *b, const char *prefix, value_id x, int32_t out_channels, int32_t stride)
{
    char name[2 * GRAPH_NAME_BYTES];
    if (stride == 1 && channels_of(b, x) == out_channels)
        return x;
    snprintf(name, sizeof name, "%s.shortcut", prefix);
    return layer_conv_bn(b, name, 0, x, (conv_shape){out_channels, 1, stride, 0, true, 1});
}

/* Logits of the channels' weights. */
static value_id excitation(builder *b, const char *prefix, value_id branch)
{
    char name[2 * GRAPH_NAME_BYTES];
    int32_t channels = channels_of(b, branch);
    value_id z = layer_global_average_pool(b, branch);
    snprintf(name, sizeof name, "%s.excitation.0", prefix);
    z = layer_relu(b, layer_linear(b, name, z, channels / REDUCTION > 0 ? channels / REDUCTION : 1));
    snprintf(name, sizeof name, "%s.excitation.2", prefix);
    return layer_linear(b, name, z, channels);
}

static value_id branch(builder *b, const char *prefix, value_id x, int32_t width, int32_t stride)
{
    char name[2 * GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s.residual", prefix);
    if (b->options->network->block == BLOCK_BASIC) {
        x = layer_conv_bn_relu(b, name, 0, x, (conv_shape){width, 3, stride, 1, true, 1});
        return layer_conv_bn_relu(b, name, 3, x, (conv_shape){width, 3, 1, 1, true, 1});
    }
    x = layer_conv_bn_relu(b, name, 0, x, (conv_shape){width, 1, 1, 0, true, 1});
    x = layer_conv_bn_relu(b, name, 3, x, (conv_shape){width, 3, stride, 1, true, 1});
    return layer_conv_bn_relu(b, name, 6, x, (conv_shape){EXPANSION * width, 1, 1, 0, true, 1});
}

static value_id block(builder *b, const char *prefix, value_id x, int32_t width, int32_t stride)
{
    value_id residual = branch(b, prefix, x, width, stride);
    value_id z = excitation(b, prefix, residual);
    value_id other = shortcut(b, prefix, x, channels_of(b, residual), stride);
    graph_scope(b->g, "%s", prefix);
    return graph_apply(b->g, OP_EXCITE, NULL, 3, (value_id[]){residual, z, other});
}

void build_seresnet(builder *b)
{
    int32_t width = base_width(b);
    value_id x = layer_conv_bn_relu(b, "pre", 0, b->m->input, (conv_shape){width, 3, 1, 1, true, 1});
    for (int stage = 0; stage < STAGES; stage++) {
        for (int i = 0; i < stage_blocks(b, stage); i++) {
            char prefix[GRAPH_NAME_BYTES];
            snprintf(prefix, sizeof prefix, "stage%d.%d", stage + 1, i);
            x = block(b, prefix, x, width << stage, i == 0 && stage > 0 ? 2 : 1);
        }
        b->m->stages[stage] = x;
    }
    b->m->features[0] = layer_global_average_pool(b, x);
    b->m->logits[0] = layer_linear(b, "linear", b->m->features[0], b->options->classes);
}

/* Owns the VGG backbones: stages of convolutions that end in a max-pool, three linear layers, no dropout. One thread.
 */
#include "model/layers.h"

static value_id stem(builder *b, int32_t width)
{
    const conv_shape shape = {width, 3, 1, 1, true, 1};
    value_id x = layer_batch_norm(b, "bn1", layer_conv(b, "conv1", b->m->input, shape), VALUE_NONE, true);
    x = layer_batch_norm(b, "bn2", layer_conv(b, "conv2", x, shape), VALUE_NONE, true);
    return layer_max_pool(b, x, 2, 2, 0);
}

static value_id build_stage(builder *b, int stage, value_id x, int32_t channels)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "layer%d", stage + 1);
    for (int i = 0; i < stage_blocks(b, stage); i++) /* convolution, norm, ReLU: three places in the sequence */
        x = layer_conv_bn_relu(b, name, 3 * i, x, (conv_shape){channels, 3, 1, 1, true, 1});
    return layer_max_pool(b, x, 2, 2, 0);
}

void build_vgg(builder *b)
{
    static const int32_t multiple[STAGES] = {2, 4, 8, 8};
    int32_t width = base_width(b), hidden = multiple[STAGES - 1] * width;
    value_id x = stem(b, width);
    for (int stage = 0; stage < STAGES; stage++) {
        x = build_stage(b, stage, x, multiple[stage] * width);
        b->m->stages[stage] = x;
    }
    b->m->features[0] = layer_global_average_pool(b, x);
    x = layer_relu(b, layer_linear(b, "classifier.0", b->m->features[0], hidden));
    x = layer_relu(b, layer_linear(b, "classifier.2", x, hidden));
    b->m->logits[0] = layer_linear(b, "classifier.4", x, b->options->classes);
}

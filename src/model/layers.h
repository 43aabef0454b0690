/* The layers that networks are written in. Private to the models. */
#ifndef TESKD_MODEL_LAYERS_H
#define TESKD_MODEL_LAYERS_H

#include "model/network.h"

/* How the weights of a part start; what is false is PyTorch's default: uniform within 1/sqrt(fan_in), biases too. */
typedef struct {
    bool normal_convolutions; /* N(0, sqrt(2 / (k * k * out_channels))) */
    bool zero_biases;
    bool normal_linears; /* N(0, 0.01) */
} init_policy;

typedef struct {
    graph *g;
    model *m;
    const model_options *options;
    const step_shape *shape;
    init_policy init;
} builder;

int32_t channels_of(const builder *b, value_id x);

/* Parameters NAME.weight, and NAME.bias if asked; kernel, stride and padding alike in both directions. */
typedef struct {
    int32_t out_channels, kernel, stride, pad;
    bool bias;
    int32_t groups; /* 0 counts as 1 */
} conv_shape;
value_id layer_conv(builder *b, const char *name, value_id x, conv_shape shape);

value_id layer_linear(builder *b, const char *name, value_id x, int32_t out_features);

/* Batch normalisation, then + residual (may be VALUE_NONE), then ReLU if asked. */
value_id layer_batch_norm(builder *b, const char *name, value_id x, value_id residual, bool relu);

/* Sequential(conv, norm, ReLU): NAME.FIRST is the convolution, NAME.(FIRST+1) the norm. */
value_id layer_conv_bn_relu(builder *b, const char *name, int first, value_id x, conv_shape shape);

/* The same without the ReLU. */
value_id layer_conv_bn(builder *b, const char *name, int first, value_id x, conv_shape shape);

value_id layer_relu(builder *b, value_id x);
value_id layer_max_pool(builder *b, value_id x, int32_t kernel, int32_t stride, int32_t pad);
value_id layer_global_average_pool(builder *b, value_id x);

/* Width of the first stage and blocks of a stage, by the options or else the network's own. */
int32_t base_width(const builder *b);
int32_t stage_blocks(const builder *b, int stage);

/* One per family: fills m->stages, features[0] and logits[0]. */
void build_residual(builder *b);
void build_seresnet(builder *b);
void build_vgg(builder *b);

/* Fills the students' logits and features from m->stages. */
void build_students(builder *b);

/* Adds the losses of every head. */
void build_losses(builder *b);

#endif

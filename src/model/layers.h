/* The layers that networks are written in. Private to the models. */
#ifndef TESKD_MODEL_LAYERS_H
#define TESKD_MODEL_LAYERS_H

#include "model/network.h"

typedef struct {
    graph *g;
    model *m;
    const model_options *options;
    const step_shape *shape;
} builder;

int32_t channels_of(const builder *b, value_id x);

/* Parameters NAME.weight, and NAME.bias if asked; kernel, stride and padding alike in both directions. */
typedef struct {
    int32_t out_channels, kernel, stride, pad;
    bool bias;
} conv_shape;
value_id layer_conv(builder *b, const char *name, value_id x, conv_shape shape);

value_id layer_linear(builder *b, const char *name, value_id x, int32_t out_features);

/* Batch normalisation, then + residual (may be VALUE_NONE), then ReLU if asked. */
value_id layer_batch_norm(builder *b, const char *name, value_id x, value_id residual, bool relu);

/* Sequential(conv, norm, ReLU): NAME.FIRST is the convolution, NAME.(FIRST+1) the norm. */
value_id layer_conv_bn_relu(builder *b, const char *name, int first, value_id x, conv_shape shape);

value_id layer_global_average_pool(builder *b, value_id x);

/* Fills m->stages, logits[0] and features[0]. */
void build_backbone(builder *b);

/* Fills the students' logits and features from m->stages. */
void build_students(builder *b);

/* Adds the losses of every head. */
void build_losses(builder *b);

#endif

/* Owns the three students: laterals, the top-down path and the heads, as in the paper's figure. One thread. */
#include "model/layers.h"

static conv_shape pointwise(int32_t channels, bool bias)
{
    return (conv_shape){channels, 1, 1, 0, bias, 1};
}

/* CBR(upsample(x)): up to the size of the stage. */
static value_id upsampled(builder *b, int stage, value_id x, int32_t width)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "upsample.%d", stage);
    graph_scope(b->g, "%s", name);
    value_id large = graph_apply(b->g, OP_UPSAMPLE2X, NULL, 1, &x);
    return layer_conv_bn_relu(b, name, 1, large, pointwise(width, false));
}

static value_id lateral(builder *b, int stage, int32_t width)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "laterals.%d", stage);
    return layer_conv_bn_relu(b, name, 0, b->m->stages[stage], pointwise(width, false));
}

static value_id fused(builder *b, int stage, value_id u, value_id l, int32_t width)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "fuse_%d", stage + 1);
    graph_scope(b->g, "%s", name);
    value_id sum = graph_apply(b->g, OP_ADD, NULL, 2, (value_id[]){u, l});
    value_id both = graph_apply(b->g, OP_CONCAT, NULL, 2, (value_id[]){sum, u});
    return layer_conv_bn_relu(b, name, 0, both, pointwise(width, false));
}

/* The patch convolution brings every student's feature map to one size; the second convolution brings its channels to
 * the teacher's, with whose feature the student's is compared. */
static value_id head_feature(builder *b, int student, value_id x, int32_t width)
{
    char name[GRAPH_NAME_BYTES];
    int32_t patch = b->options->network->patch << student;
    snprintf(name, sizeof name, "downsample%d", STUDENTS - student);
    x = layer_conv_bn_relu(b, name, 0, x, (conv_shape){width, patch, patch, 0, true, 1});
    x = layer_conv_bn_relu(b, name, 3, x, pointwise(channels_of(b, b->m->stages[STAGES - 1]), true));
    return layer_global_average_pool(b, x);
}

static int deepest_path(const builder *b)
{
    int last = -1;
    for (int student = 0; student < STUDENTS; student++)
        if (b->m->head_on[1 + student])
            last = student;
    return last;
}

void build_students(builder *b)
{
    value_id last_stage = b->m->stages[STAGES - 1];
    int32_t width = b->options->student_width ? b->options->student_width : channels_of(b, last_stage);
    value_id top = lateral(b, STAGES - 1, width);
    for (int student = 0; student <= deepest_path(b); student++) {
        int stage = STAGES - 2 - student, head = 1 + student;
        char name[GRAPH_NAME_BYTES];
        value_id u = upsampled(b, stage, top, width);
        top = fused(b, stage, u, lateral(b, stage, width), width);
        if (!b->m->head_on[head])
            continue;
        b->m->features[head] = head_feature(b, student, top, width);
        snprintf(name, sizeof name, "fc_b%d", stage + 1);
        b->m->logits[head] = layer_linear(b, name, b->m->features[head], b->options->classes);
    }
}

/* Owns the list of layers and what their ops look like. Constant data and pure functions. */
#include "op_cases.h"

#include <stdio.h>
#include <string.h>

/* Odd sizes on purpose: one channel, channels that no vector width divides, feature maps that are not square. */
const layer_case layer_cases[] = {
    /* kind, n, h, w, c, o, kernel, stride, pad, groups, terms, options */
    {LAYER_CONV2D, 1, 4, 4, 1, 1, 1, 1, 0, 1, 0, 0},
    {LAYER_CONV2D, 2, 5, 7, 3, 17, 3, 1, 1, 1, 0, BIAS},
    {LAYER_CONV2D, 3, 8, 6, 16, 5, 1, 1, 0, 1, 0, 0},
    {LAYER_CONV2D, 1, 8, 6, 100, 64, 1, 1, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 9, 7, 17, 16, 1, 2, 0, 1, 0, 0},
    {LAYER_CONV2D, 2, 16, 16, 4, 8, 1, 2, 0, 1, 0, 0},
    {LAYER_CONV2D, 2, 8, 8, 3, 16, 1, 2, 0, 1, 0, 0},
    {LAYER_CONV2D, 3, 16, 16, 6, 64, 1, 2, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 16, 16, 8, 16, 1, 2, 0, 1, 0, 0},
    {LAYER_CONV2D, 3, 9, 7, 12, 64, 1, 2, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 9, 9, 15, 16, 1, 3, 0, 1, 0, 0},
    {LAYER_CONV2D, 2, 16, 16, 24, 40, 1, 2, 0, 1, 0, 0},
    {LAYER_CONV2D, 7, 6, 5, 5, 3, 3, 2, 1, 1, 0, 0},
    {LAYER_CONV2D, 2, 8, 8, 64, 100, 3, 1, 1, 1, 0, 0},
    {LAYER_CONV2D, 1, 7, 5, 64, 64, 3, 2, 1, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 6, 9, 16, 16, 3, 1, 1, 2, 0, BIAS},
    {LAYER_CONV2D, 3, 7, 6, 64, 100, 3, 2, 1, 4, 0, 0},
    {LAYER_CONV2D, 1, 5, 5, 4, 4, 3, 1, 1, 4, 0, 0},
    {LAYER_CONV2D, 2, 8, 4, 16, 17, 2, 2, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 1, 8, 12, 17, 5, 4, 4, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 8, 16, 5, 16, 8, 8, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 15, 11, 3, 64, 7, 2, 3, 1, 0, 0},
    {LAYER_CONV2D, 1, 9, 8, 1, 16, 7, 1, 3, 1, 0, 0},
    {LAYER_CONV2D, 3, 9, 10, 3, 5, 4, 2, 1, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 21, 17, 3, 16, 7, 2, 3, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 6, 5, 16, 5, 1, 2, 0, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 7, 6, 64, 64, 3, 1, 1, 1, 0, BIAS},
    {LAYER_CONV2D, 2, 6, 7, 128, 128, 3, 1, 1, 32, 0, 0},
    {LAYER_CONV2D, 1, 9, 8, 128, 128, 3, 2, 1, 32, 0, BIAS},
    {LAYER_CONV2D, 2, 5, 4, 256, 256, 3, 1, 1, 32, 0, BIAS},
    {LAYER_CONV2D, 1, 8, 7, 256, 256, 3, 2, 1, 32, 0, 0},
    {LAYER_CONV2D, 1, 5, 5, 512, 512, 3, 1, 1, 32, 0, 0},
    {LAYER_CONV2D, 1, 6, 5, 512, 512, 3, 2, 1, 32, 0, 0},
    {LAYER_CONV2D, 1, 4, 4, 1024, 1024, 3, 1, 1, 32, 0, BIAS},
    {LAYER_CONV2D, 1, 4, 4, 1024, 1024, 3, 2, 1, 32, 0, 0},
    {LAYER_CONV2D, 2, 5, 6, 32, 64, 3, 1, 1, 8, 0, BIAS},
    {LAYER_CONV2D, 2, 5, 6, 64, 32, 3, 2, 1, 8, 0, 0},
    {LAYER_CONV2D, 1, 6, 5, 24, 24, 3, 1, 1, 6, 0, 0},
    {LAYER_LINEAR, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0},
    {LAYER_LINEAR, 7, 1, 1, 100, 17, 0, 0, 0, 0, 0, BIAS},
    {LAYER_LINEAR, 3, 1, 1, 64, 100, 0, 0, 0, 0, 0, 0},
    {LAYER_LINEAR, 2, 5, 3, 17, 16, 0, 0, 0, 0, 0, BIAS},
    {LAYER_LINEAR, 2, 3, 2, 5 * 4, 64, 2, 0, 0, 0, 0, OHWI_WEIGHT},
    {LAYER_LINEAR, 1, 2, 1, 3 * 64, 5, 8, 0, 0, 0, 0, OHWI_WEIGHT | BIAS},
    {LAYER_LINEAR, 2, 5, 3, 17, 16, 1, 0, 0, 0, 0, OHWI_WEIGHT | BIAS},
    {LAYER_LINEAR, 2, 3, 5, 16 * 4, 17, 2, 0, 0, 0, 0, OHWI_WEIGHT | BIAS},
    {LAYER_LINEAR, 3, 2, 2, 5 * 16, 64, 4, 0, 0, 0, 0, OHWI_WEIGHT | BIAS},
    {LAYER_CONCAT_LINEAR, 1, 1, 1, 1, 3, 0, 0, 0, 0, 0, 0},
    {LAYER_CONCAT_LINEAR, 2, 3, 5, 16, 17, 0, 0, 0, 0, 0, 0},
    {LAYER_CONCAT_LINEAR, 3, 4, 2, 100, 64, 0, 0, 0, 0, 0, 0},
    {LAYER_LINEAR_BN, 1, 2, 3, 1, 5, 0, 0, 0, 0, 0, 0},
    {LAYER_LINEAR_BN, 3, 4, 5, 5, 17, 0, 0, 0, 0, 0, RELU},
    {LAYER_LINEAR_BN, 2, 3, 5, 16, 64, 0, 0, 0, 0, 0, RELU},
    {LAYER_LINEAR_BN, 2, 7, 6, 24, 100, 0, 0, 0, 0, 0, 0},
    {LAYER_LINEAR_BN, 1, 8, 9, 40, 264, 0, 0, 0, 0, 0, RELU},
    {LAYER_LINEAR_BN, 1, 3, 4, 300, 7, 0, 0, 0, 0, 0, RELU},
    {LAYER_BATCH_NORM, 2, 3, 5, 1, 0, 0, 0, 0, 0, 1, 0},
    {LAYER_BATCH_NORM, 1, 4, 3, 3, 0, 0, 0, 0, 0, 1, RELU | BIAS},
    {LAYER_BATCH_NORM, 7, 1, 1, 17, 0, 0, 0, 0, 0, 2, 0},
    {LAYER_BATCH_NORM, 3, 5, 4, 100, 0, 0, 0, 0, 0, 3, RELU | BIAS},
    {LAYER_BATCH_NORM, 2, 7, 3, 64, 0, 0, 0, 0, 0, 1, RELU | KEPT_Y},
    {LAYER_BATCH_NORM, 2, 4, 4, 16, 0, 0, 0, 0, 0, 1, RELU | RESIDUAL | KEPT_Y},
    {LAYER_BATCH_NORM, 1, 5, 6, 5, 0, 0, 0, 0, 0, 5, RELU | RESIDUAL | KEPT_Y},
    {LAYER_BATCH_NORM, 3, 3, 3, 17, 0, 0, 0, 0, 0, 2, RESIDUAL},
    {LAYER_BATCH_NORM, 3, 8, 24, 16, 0, 0, 0, 0, 0, 3, RELU},
    {LAYER_BATCH_NORM, 2, 16, 8, 17, 0, 0, 0, 0, 0, 1, RELU},
    {LAYER_BATCH_NORM, 1, 3, 5, 3, 0, 0, 0, 0, 0, 1, RESIDUAL},
    {LAYER_BATCH_NORM, 2, 20, 18, 64, 0, 0, 0, 0, 0, 4, RELU | KEPT_Y},
    {LAYER_ADD, 1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 0},
    {LAYER_ADD, 3, 5, 4, 17, 0, 0, 0, 0, 0, 3, 0},
    {LAYER_ADD, 2, 3, 7, 100, 0, 0, 0, 0, 0, 8, 0},
    {LAYER_CONCAT, 1, 1, 1, 1, 3, 0, 0, 0, 0, 0, 0},
    {LAYER_CONCAT, 3, 2, 5, 17, 64, 0, 0, 0, 0, 0, 0},
    {LAYER_CONCAT, 2, 4, 3, 100, 5, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE2X, 1, 1, 1, 3, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE2X, 2, 1, 3, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE2X, 3, 4, 4, 64, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE2X, 2, 5, 7, 5, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE2X, 1, 14, 9, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE_BN, 2, 1, 1, 3, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 2, 1, 3, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE_BN, 1, 2, 1, 5, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 3, 4, 4, 64, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 2, 5, 7, 16, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_UPSAMPLE_BN, 1, 9, 14, 100, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 1, 17, 29, 8, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 1, 3, 4, 520, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_UPSAMPLE_BN, 260, 1, 1, 520, 0, 0, 0, 0, 0, 0, RELU},
    {LAYER_PATCHIFY, 1, 2, 2, 1, 0, 1, 0, 0, 0, 0, 0},
    {LAYER_PATCHIFY, 3, 4, 6, 5, 0, 2, 0, 0, 0, 0, 0},
    {LAYER_PATCHIFY, 2, 12, 8, 17, 0, 4, 0, 0, 0, 0, 0},
    {LAYER_PATCHIFY, 1, 8, 16, 64, 0, 8, 0, 0, 0, 0, 0},
    {LAYER_FOLD, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0},
    {LAYER_FOLD, 0, 0, 0, 17, 5, 0, 0, 0, 0, 0, 0},
    {LAYER_FOLD, 0, 0, 0, 64, 100, 0, 0, 0, 0, 0, 0},
    {LAYER_POOL, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_POOL, 3, 4, 4, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_POOL, 7, 7, 5, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_RELU, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_RELU, 3, 5, 4, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_RELU, 2, 20, 18, 64, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_MAX_POOL, 1, 2, 2, 1, 0, 2, 2, 0, 0, 0, 0},
    {LAYER_MAX_POOL, 2, 7, 5, 17, 0, 3, 2, 1, 0, 0, 0},
    {LAYER_MAX_POOL, 3, 7, 9, 5, 0, 2, 2, 0, 0, 0, 0},
    {LAYER_MAX_POOL, 1, 6, 5, 100, 0, 3, 1, 1, 0, 0, 0},
    {LAYER_MAX_POOL, 2, 5, 6, 16, 0, 3, 1, 0, 0, 0, 0},
    {LAYER_MAX_POOL, 1, 7, 5, 3, 0, 2, 1, 1, 0, 0, 0},
    {LAYER_MAX_POOL, 2, 8, 7, 64, 0, 2, 3, 0, 0, 0, 0},
    {LAYER_MAX_POOL, 1, 11, 9, 1, 0, 5, 2, 2, 0, 0, 0},
    {LAYER_MAX_POOL, 2, 22, 26, 64, 0, 3, 2, 1, 0, 0, 0},
    {LAYER_EXCITE, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_EXCITE, 3, 5, 4, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_EXCITE, 2, 4, 3, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_EXCITE, 3, 11, 13, 64, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_CROSS_ENTROPY, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_CROSS_ENTROPY, 7, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_CROSS_ENTROPY, 64, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_CROSS_ENTROPY, 7, 0, 0, 17, 0, 0, 0, 0, 0, 0, SMOOTHED},
    {LAYER_CROSS_ENTROPY, 16, 0, 0, 100, 0, 0, 0, 0, 0, 0, SMOOTHED},
    {LAYER_KD_LOSS, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_KD_LOSS, 7, 0, 0, 17, 0, 0, 0, 0, 0, 0, NO_TEACHER_GRAD},
    {LAYER_KD_LOSS, 16, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_FEATURE_LOSS, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_FEATURE_LOSS, 7, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_CLIP, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0},
    {LAYER_CLIP, 0, 0, 0, 17, 5, 3, 0, 0, 0, 0, 0},
    {LAYER_CLIP, 0, 0, 0, 100, 200, 1, 0, 0, 0, 0, 0},
    {LAYER_SGD, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, DECAY},
    {LAYER_SGD, 0, 0, 0, 17, 5, 3, 0, 0, 0, 0, NESTEROV},
    {LAYER_SGD, 0, 0, 0, 100, 64, 1, 0, 0, 0, 0, NESTEROV | DECAY},
    {LAYER_SGD, 0, 0, 0, 17, 5, 1, 0, 0, 0, 0, DECAY | CLIPPED},
    {LAYER_SGD, 0, 0, 0, 100, 200, 1, 0, 0, 0, 0, NESTEROV | DECAY | CLIPPED},
    {LAYER_SGD, 0, 0, 0, 17, 5, 1, 0, 0, 0, 0, NESTEROV | DECAY | CLIPPED | COPIED},
    {LAYER_SGD, 0, 0, 0, 64, 200, 1, 0, 0, 0, 0, COPIED},
    {LAYER_SGD, 0, 0, 0, 17, 5, 3, 0, 0, 0, 0, NESTEROV | DECAY | CLIPPED | COPIED | WITH_EMA},
    {LAYER_SGD, 0, 0, 0, 64, 200, 1, 0, 0, 0, 0, WITH_EMA},
    {LAYER_SGD, 0, 0, 0, 17, 5, 1, 0, 0, 0, 0, RATE_FIRST},
    {LAYER_SGD, 0, 0, 0, 100, 64, 1, 0, 0, 0, 0, RATE_FIRST | NESTEROV | DECAY},
    {LAYER_SGD, 0, 0, 0, 17, 5, 3, 0, 0, 0, 0, RATE_FIRST | DECAY | CLIPPED | COPIED | WITH_EMA},
    {LAYER_LARS, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0},
    {LAYER_LARS, 0, 0, 0, 17, 5, 3, 0, 0, 0, 0, DECAY},
    {LAYER_LARS, 0, 0, 0, 64, 64, 1, 0, 0, 0, 0, CLIPPED},
    {LAYER_LARS, 0, 0, 0, 100, 200, 1, 0, 0, 0, 0, DECAY | CLIPPED},
    {LAYER_CROSS_ENTROPY, 7, 0, 0, 17, 0, 0, 0, 0, 0, 0, SCALED},
    {LAYER_KD_LOSS, 7, 0, 0, 17, 0, 0, 0, 0, 0, 0, SCALED},
    {LAYER_FEATURE_LOSS, 7, 0, 0, 100, 0, 0, 0, 0, 0, 0, SCALED},
    {LAYER_IMAGES, 3, 5, 7, 3, 4, 0, 0, 2, 0, 0, 0},
    {LAYER_IMAGES, 5, 8, 6, 8, 3, 0, 0, 4, 0, 0, 0},
    {LAYER_IMAGES, 1, 1, 3, 5, 1, 0, 0, 0, 0, 0, 0},
    {LAYER_LOSS_SCALE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {LAYER_LOSS_SCALE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, CLIPPED},
    {LAYER_METRIC, 0, 0, 0, 17, 2, 0, 0, 0, 0, 0, 0},
    {LAYER_METRIC, 0, 0, 0, 200, 1, 0, 0, 0, 0, 0, 0},
    {LAYER_EMA, 0, 0, 0, 17, 5, 1, 0, 0, 0, 0, 0},
    {LAYER_EMA, 0, 0, 0, 100, 200, 1, 0, 0, 0, 0, 0},
};
const int layer_case_count = (int)(sizeof layer_cases / sizeof layer_cases[0]);

static const struct {
    const char *name;
    int in_place;
} op_facts[OP_COUNT] = {
#define OP(id, name, least, most, outputs, in_place, ...) [id] = {name, in_place},
#include "graph/ops.def"
#undef OP
};

const char *op_case_name(unsigned op)
{
    return op_facts[op].name;
}

int op_case_in_place(unsigned op)
{
    return op_facts[op].in_place;
}

void layer_describe(const layer_case *row, const char *op, char *text, int size)
{
    snprintf(text, (size_t)size, "%s n%d h%d w%d c%d o%d k%d s%d p%d g%d terms %d options %u", op, row->n, row->h,
             row->w, row->c, row->o, row->kernel, row->stride, row->pad, row->groups, row->terms, row->options);
}

static const tensor_desc absent = {0};

static tensor_desc desc(tensor_layout l, dtype type, int32_t a, int32_t b, int32_t c, int32_t d)
{
    return (tensor_desc){.dim = {a, b, c, d}, .dtype = (uint8_t)type, .layout = (uint8_t)l, .kind = KIND_ACTIVATION};
}

static tensor_desc vector(dtype type, int32_t size)
{
    return desc(LAYOUT_C, type, 1, 1, 1, size);
}

static tensor_desc channel_sums(int32_t channels)
{
    return desc(LAYOUT_C, DTYPE_F64, 1, 1, 2, channels);
}

/* Of parameters and their gradients where activations are `real`: 16-bit devices keep them in float32. */
static dtype parameter_type(dtype real)
{
    return real == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
}

static tensor_desc with_type(tensor_desc t, dtype type)
{
    t.dtype = (uint8_t)type;
    return t;
}

/* Sets the shapes and numbers the values; a value without elements is absent, and not listed when it is the last. */
static void request_init(kernel_request *r, op_id op, const op_attr *attr, int n_in, const tensor_desc in[], int n_out,
                         const tensor_desc out[])
{
    while (n_in > 0 && tensor_count(&in[n_in - 1]) == 0)
        n_in--;
    while (n_out > 0 && tensor_count(&out[n_out - 1]) == 0)
        n_out--;
    *r = (kernel_request){.node = {.op = (uint16_t)op, .n_in = (uint8_t)n_in, .n_out = (uint8_t)n_out, .attr = *attr},
                          .label = "test"};
    value_id next = VALUE_NONE + 1;
    for (int i = 0; i < n_in; i++) {
        r->in[i] = in[i];
        r->node.in[i] = tensor_count(&in[i]) ? next++ : VALUE_NONE;
    }
    for (int i = 0; i < n_out; i++) {
        r->out[i] = out[i];
        r->node.out[i] = tensor_count(&out[i]) ? next++ : VALUE_NONE;
    }
}

/* A linear layer is a convolution's sibling: three ops over x, w, bias and y. */
static int weighted_requests(const layer_case *row, dtype real, kernel_request *r)
{
    bool conv = row->kind == LAYER_CONV2D;
    op_attr attr = {.kernel = row->kernel, .stride = row->stride, .pad = row->pad, .groups = row->groups};
    int32_t oh = conv ? (row->h + 2 * row->pad - row->kernel) / row->stride + 1 : row->h;
    int32_t ow = conv ? (row->w + 2 * row->pad - row->kernel) / row->stride + 1 : row->w;
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, oh, ow, row->o);
    tensor_desc bias = row->options & BIAS ? vector(parameter_type(real), row->o) : absent;
    tensor_desc w = desc(LAYOUT_OI, real, row->o, 1, 1, row->c);
    if (conv)
        w = desc(LAYOUT_OHWI, real, row->o, row->kernel, row->kernel, row->c / row->groups);
    else if (row->options & OHWI_WEIGHT)
        w = desc(LAYOUT_OHWI, real, row->o, row->kernel, row->kernel, row->c / (row->kernel * row->kernel));
    request_init(&r[0], conv ? OP_CONV2D : OP_LINEAR, &attr, 3, (tensor_desc[]){x, w, bias}, 1, &y);
    request_init(&r[1], conv ? OP_CONV2D_DGRAD : OP_LINEAR_DGRAD, &attr, 2, (tensor_desc[]){y, w}, 1, &x);
    request_init(&r[2], conv ? OP_CONV2D_WGRAD : OP_LINEAR_WGRAD, &attr, 2, (tensor_desc[]){x, y}, 2,
                 (tensor_desc[]){with_type(w, parameter_type(real)), bias});
    return 3;
}

static int concat_linear_requests(const layer_case *row, dtype real, kernel_request *r)
{
    enum { OUTPUTS = 13 };
    op_attr attr = {0};
    tensor_desc a = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc b = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->o);
    tensor_desc w = desc(LAYOUT_OI, real, OUTPUTS, 1, 1, row->c + row->o);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, OUTPUTS);
    tensor_desc dw = with_type(w, parameter_type(real));
    request_init(&r[0], OP_CONCAT_LINEAR, &attr, 3, (tensor_desc[]){a, b, w}, 1, &y);
    request_init(&r[1], OP_CONCAT_LINEAR_DGRAD, &attr, 2, (tensor_desc[]){y, w}, 2, (tensor_desc[]){a, b});
    request_init(&r[2], OP_CONCAT_LINEAR_WGRAD, &attr, 3, (tensor_desc[]){a, b, y}, 1, &dw);
    return 3;
}

/* attr.count is not the local number of rows, as on several ranks. */
static int linear_bn_requests(const layer_case *row, dtype real, kernel_request *r)
{
    dtype wide = parameter_type(real);
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->o);
    tensor_desc w = desc(LAYOUT_OHWI, wide, row->o, 1, 1, row->c), c = vector(wide, row->o);
    tensor_desc moments = desc(LAYOUT_OI, wide, row->c + 1, 1, 1, row->c), sums = channel_sums(row->o);
    op_attr attr = {.relu = (row->options & RELU) != 0, .eps = 1e-5};
    attr.count = 2 * (double)tensor_rows(&x);
    request_init(&r[0], OP_CHANNEL_MOMENTS, &attr, 1, &x, 1, &moments);
    request_init(&r[1], OP_LINEAR_BN_SUMS, &attr, 2, (tensor_desc[]){moments, w}, 1, &sums);
    request_init(&r[2], OP_LINEAR_BN, &attr, 6, (tensor_desc[]){x, w, sums, c, c, moments}, 1, &y);
    request_init(&r[3], OP_LINEAR_BN_GRAD_SUMS, &attr, 4, (tensor_desc[]){w, c, w, sums}, 1, &sums);
    request_init(&r[4], OP_LINEAR_BN_WGRAD, &attr, 6, (tensor_desc[]){w, w, sums, c, sums, moments}, 1, &w);
    request_init(&r[5], OP_LINEAR_BN_DGRAD, &attr, 6, (tensor_desc[]){y, x, w, sums, c, sums}, 1, &x);
    return 6;
}

/* attr.count as of two ranks again. */
static int batch_norm_requests(const layer_case *row, dtype real, kernel_request *r)
{
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc c = vector(parameter_type(real), row->c), sums = channel_sums(row->c);
    tensor_desc residual = row->options & RESIDUAL ? x : absent, y = row->options & KEPT_Y ? x : absent;
    bool wants_g = (row->options & KEPT_Y) != 0 || row->terms > 1;
    op_attr attr = {.relu = (row->options & RELU) != 0, .eps = 1e-5, .momentum = 0.1};
    attr.count = 2 * (double)tensor_rows(&x);
    op_attr grad_attr = attr; /* with g at hand the mask is in it already */
    grad_attr.relu = attr.relu && !wants_g;

    tensor_desc grad_in[NODE_MAX_IN] = {x, sums, c, c, y};
    for (int i = 0; i < row->terms; i++)
        grad_in[5 + i] = x;
    request_init(&r[0], OP_BN_SUMS, &attr, 1, &x, 1, &sums);
    request_init(&r[1], OP_BN_NORMALIZE, &attr, 5, (tensor_desc[]){x, sums, c, c, residual}, 1, &x);
    request_init(&r[2], OP_BN_GRAD_SUMS, &attr, 5 + row->terms, grad_in, 2,
                 (tensor_desc[]){sums, wants_g ? x : absent});
    request_init(&r[3], OP_BN_GRAD, &grad_attr, 6, (tensor_desc[]){x, sums, c, c, sums, x}, 1, &x);
    request_init(&r[4], OP_BN_PARAM_GRAD, &attr, 1, &sums, 2, (tensor_desc[]){c, c});
    request_init(&r[5], OP_BN_RUNNING, &attr, 4, (tensor_desc[]){sums, c, c, row->options & BIAS ? c : absent}, 0,
                 NULL);
    request_init(&r[6], OP_BN_INFERENCE, &attr, 6, (tensor_desc[]){x, c, c, c, c, residual}, 1, &x);
    request_init(&r[7], OP_ZERO, &attr, 1, &c, 1, &c);
    return 8;
}

/* attr.count as of two ranks again. */
static int upsample_bn_requests(const layer_case *row, dtype real, kernel_request *r)
{
    tensor_desc z = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, 2 * row->h, 2 * row->w, row->c);
    tensor_desc c = vector(parameter_type(real), row->c), sums = channel_sums(row->c);
    op_attr attr = {.relu = (row->options & RELU) != 0, .eps = 1e-5};
    attr.count = 2 * (double)tensor_rows(&y);
    request_init(&r[0], OP_UPSAMPLE_BN_SUMS, &attr, 1, &z, 1, &sums);
    request_init(&r[1], OP_UPSAMPLE_BN, &attr, 4, (tensor_desc[]){z, sums, c, c}, 1, &y);
    request_init(&r[2], OP_UPSAMPLE_BN_GRAD_SUMS, &attr, 5, (tensor_desc[]){z, sums, c, c, y}, 2,
                 (tensor_desc[]){sums, z});
    request_init(&r[3], OP_UPSAMPLE_BN_GRAD, &attr, 5, (tensor_desc[]){z, sums, c, sums, z}, 1, &z);
    request_init(&r[4], OP_BN_PARAM_GRAD, &attr, 1, &sums, 2, (tensor_desc[]){c, c});
    request_init(&r[5], OP_UPSAMPLE_BN_INFERENCE, &attr, 5, (tensor_desc[]){z, c, c, c, c}, 1, &y);
    return 6;
}

static int concat_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {0}, second = {.channel_offset = row->c};
    tensor_desc a = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc b = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->o);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c + row->o);
    request_init(&r[0], OP_CONCAT, &attr, 2, (tensor_desc[]){a, b}, 1, &y);
    request_init(&r[1], OP_CHANNEL_SLICE, &attr, 1, &y, 1, &a);
    request_init(&r[2], OP_CHANNEL_SLICE, &second, 1, &y, 1, &b);
    return 3;
}

/* Ops with one input, one output and the same with the roles exchanged. */
static int pair_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.kernel = row->kernel};
    op_id forward = OP_UPSAMPLE2X, backward = OP_UPSAMPLE2X_GRAD;
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc y = desc(LAYOUT_NHWC, real, row->n, 2 * row->h, 2 * row->w, row->c);
    if (row->kind == LAYER_PATCHIFY) {
        int32_t k = row->kernel;
        forward = OP_PATCHIFY, backward = OP_UNPATCHIFY;
        y = desc(LAYOUT_NHWC, real, row->n, row->h / k, row->w / k, k * k * row->c);
    } else if (row->kind == LAYER_POOL) {
        forward = OP_GLOBAL_AVERAGE_POOL, backward = OP_GLOBAL_AVERAGE_POOL_GRAD;
        y = desc(LAYOUT_NHWC, real, row->n, 1, 1, row->c);
    } else if (row->kind == LAYER_FOLD) {
        forward = OP_FOLD_FUSE_WEIGHT, backward = OP_FOLD_FUSE_WEIGHT_GRAD;
        x = y = desc(LAYOUT_OHWI, real, row->o, 1, 1, 2 * row->c);
    }
    request_init(&r[0], forward, &attr, 1, &x, 1, &y);
    if (row->kind == LAYER_FOLD) /* 16-bit copies of weights, float32 gradients */
        x = y = with_type(x, parameter_type(real));
    request_init(&r[1], backward, &attr, 1, &y, 1, &x);
    return 2;
}

/* Ops whose gradient reads values of the forward. */
static int unary_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.kernel = row->kernel, .stride = row->stride, .pad = row->pad};
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c), y = x;
    if (row->kind == LAYER_RELU) {
        request_init(&r[0], OP_RELU, &attr, 1, &x, 1, &x);
        request_init(&r[1], OP_RELU_GRAD, &attr, 2, (tensor_desc[]){x, x}, 1, &x);
        return 2;
    }
    y.dim[1] = (row->h + 2 * row->pad - row->kernel) / row->stride + 1;
    y.dim[2] = (row->w + 2 * row->pad - row->kernel) / row->stride + 1;
    request_init(&r[0], OP_MAX_POOL, &attr, 1, &x, 1, &y);
    request_init(&r[1], OP_MAX_POOL_GRAD, &attr, 2, (tensor_desc[]){x, y}, 1, &x);
    return 2;
}

static int excite_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {0};
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c);
    tensor_desc z = desc(LAYOUT_NHWC, real, row->n, 1, 1, row->c);
    request_init(&r[0], OP_EXCITE, &attr, 3, (tensor_desc[]){x, z, x}, 1, &x);
    request_init(&r[1], OP_EXCITE_GRAD, &attr, 4, (tensor_desc[]){x, z, x, x}, 3, (tensor_desc[]){x, z, x});
    return 2;
}

static int loss_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.count = 2 * row->n, .weight = 0.8, .temperature = 4};
    attr.smoothing = row->options & SMOOTHED ? 0.1 : 0;
    tensor_desc a = desc(LAYOUT_NHWC, real, row->n, 1, 1, row->c), loss = vector(DTYPE_F64, 1);
    tensor_desc scaling = row->options & SCALED ? vector(parameter_type(real), 4) : absent;
    tensor_desc target = desc(LAYOUT_NHWC, DTYPE_I32, row->n, 1, 1, 1), counts = vector(DTYPE_F64, 2);
    if (row->kind == LAYER_CROSS_ENTROPY) {
        request_init(&r[0], OP_CROSS_ENTROPY, &attr, 2, (tensor_desc[]){a, target}, 1, &loss);
        request_init(&r[1], OP_CROSS_ENTROPY_GRAD, &attr, 3, (tensor_desc[]){a, target, scaling}, 1, &a);
        request_init(&r[2], OP_TOP_K, &attr, 2, (tensor_desc[]){a, target}, 1, &counts);
        return 3;
    }
    bool kd = row->kind == LAYER_KD_LOSS;
    tensor_desc teacher_grad = row->options & NO_TEACHER_GRAD ? absent : a;
    request_init(&r[0], kd ? OP_KD_LOSS : OP_FEATURE_LOSS, &attr, 2, (tensor_desc[]){a, a}, 1, &loss);
    request_init(&r[1], kd ? OP_KD_LOSS_GRAD : OP_FEATURE_LOSS_GRAD, &attr, 3, (tensor_desc[]){a, a, scaling},
                 kd ? 2 : 1, (tensor_desc[]){a, teacher_grad});
    return 2;
}

static int add_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {0};
    tensor_desc x = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, row->c), in[NODE_MAX_IN];
    for (int i = 0; i < row->terms; i++)
        in[i] = x;
    request_init(&r[0], OP_ADD, &attr, row->terms, in, 1, &x);
    return 1;
}

/* What the optimiser works on. */
static tensor_desc weight_desc(const layer_case *row, dtype real)
{
    return desc(LAYOUT_OHWI, parameter_type(real), row->o, row->kernel, row->kernel, row->c);
}

static int clip_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.max_norm = 0.9};
    tensor_desc w = weight_desc(row, real), sum = vector(DTYPE_F64, 1);
    request_init(&r[0], OP_SUM_SQUARES, &attr, 1, &w, 1, &sum);
    request_init(&r[1], OP_SUM_SQUARES, &attr, 2, (tensor_desc[]){w, sum}, 1, &sum);
    request_init(&r[2], OP_CLIP_FACTOR, &attr, 1, &sum, 1, &sum);
    request_init(&r[3], OP_COUNT_NOT_FINITE, &attr, 1, &w, 1, &sum);
    return 4;
}

static int lars_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.eta = 0.01, .weight_decay = row->options & DECAY ? 5e-2 : 0};
    tensor_desc w = weight_desc(row, real), lr = vector(DTYPE_F64, 1), factor = row->options & CLIPPED ? lr : absent;
    request_init(&r[0], OP_LARS_RATE, &attr, 4, (tensor_desc[]){w, w, lr, factor}, 1, &lr);
    return 1;
}

static int sgd_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.momentum = 0.9,
                    .weight_decay = 5e-2,
                    .ema_decay = 0.75,
                    .nesterov = (row->options & NESTEROV) != 0,
                    .rate_first = (row->options & RATE_FIRST) != 0,
                    .decay = (row->options & DECAY) != 0};
    tensor_desc w = weight_desc(row, real), lr = vector(DTYPE_F64, 1);
    tensor_desc factor = row->options & CLIPPED ? lr : absent;
    tensor_desc copy = row->options & COPIED ? with_type(w, real) : absent;
    tensor_desc ema = row->options & WITH_EMA ? w : absent;
    request_init(&r[0], OP_SGD_UPDATE, &attr, 7, (tensor_desc[]){w, w, w, lr, factor, copy, ema}, 0, NULL);
    return 1;
}

static int ema_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.momentum = 0.9};
    tensor_desc w = weight_desc(row, real);
    request_init(&r[0], OP_EMA_UPDATE, &attr, 2, (tensor_desc[]){w, w}, 0, NULL);
    return 1;
}

static int images_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.pad = row->pad, .channels = row->c};
    dtype wide = parameter_type(real);
    tensor_desc set = desc(LAYOUT_NHWC, DTYPE_U8, row->o, row->h, row->w, 3);
    tensor_desc choice = desc(LAYOUT_NHWC, DTYPE_I32, row->n, 1, 1, 4), table = desc(LAYOUT_NHWC, wide, 1, 256, 1, 3);
    tensor_desc three = desc(LAYOUT_NHWC, real, row->n, row->h, row->w, 3), y = three;
    y.dim[3] = row->c;
    request_init(&r[0], OP_IMAGES, &attr, 3, (tensor_desc[]){set, choice, table}, 1, &y);
    request_init(&r[1], OP_PAD_CHANNELS, &attr, 1, &three, 1, &y);
    tensor_desc exact = with_type(y, wide);
    request_init(&r[2], OP_CONVERT, &attr, 1, &exact, 1, &y);
    request_init(&r[3], OP_CONVERT, &attr, 1, &y, 1, &exact);
    return 4;
}

static int loss_scale_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.max_norm = row->options & CLIPPED ? 0.3 : 0};
    tensor_desc sum = vector(DTYPE_F64, 1), scaling = vector(parameter_type(real), 4);
    request_init(&r[0], OP_LOSS_SCALE, &attr, 2, (tensor_desc[]){sum, scaling}, 1, &sum);
    return 1;
}

static int metric_requests(const layer_case *row, dtype real, kernel_request *r)
{
    op_attr attr = {.weight = 0.7, .channel_offset = row->o};
    tensor_desc x = vector(parameter_type(real), row->c), some = vector(DTYPE_F64, 2);
    tensor_desc sums = vector(DTYPE_F64, row->o + 3);
    request_init(&r[0], OP_SCALE, &attr, 1, &x, 0, NULL);
    request_init(&r[1], OP_METRIC_ADD, &attr, 2, (tensor_desc[]){some, sums}, 0, NULL);
    request_init(&r[2], OP_METRIC_WATCH, &attr, 2, (tensor_desc[]){some, sums}, 0, NULL);
    return 3;
}

int layer_requests(const layer_case *row, dtype real, kernel_request requests[LAYER_MAX_OPS])
{
    switch (row->kind) {
    case LAYER_CONV2D:
    case LAYER_LINEAR:
        return weighted_requests(row, real, requests);
    case LAYER_CONCAT_LINEAR:
        return concat_linear_requests(row, real, requests);
    case LAYER_LINEAR_BN:
        return linear_bn_requests(row, real, requests);
    case LAYER_BATCH_NORM:
        return batch_norm_requests(row, real, requests);
    case LAYER_UPSAMPLE_BN:
        return upsample_bn_requests(row, real, requests);
    case LAYER_ADD:
        return add_requests(row, real, requests);
    case LAYER_CONCAT:
        return concat_requests(row, real, requests);
    case LAYER_UPSAMPLE2X:
    case LAYER_PATCHIFY:
    case LAYER_FOLD:
    case LAYER_POOL:
        return pair_requests(row, real, requests);
    case LAYER_RELU:
    case LAYER_MAX_POOL:
        return unary_requests(row, real, requests);
    case LAYER_EXCITE:
        return excite_requests(row, real, requests);
    case LAYER_CROSS_ENTROPY:
    case LAYER_KD_LOSS:
    case LAYER_FEATURE_LOSS:
        return loss_requests(row, real, requests);
    case LAYER_IMAGES:
        return images_requests(row, real, requests);
    case LAYER_LOSS_SCALE:
        return loss_scale_requests(row, real, requests);
    case LAYER_METRIC:
        return metric_requests(row, real, requests);
    case LAYER_LARS:
        return lars_requests(row, real, requests);
    case LAYER_SGD:
        return sgd_requests(row, real, requests);
    case LAYER_EMA:
        return ema_requests(row, real, requests);
    case LAYER_CLIP:
        return clip_requests(row, real, requests);
    }
    return 0;
}

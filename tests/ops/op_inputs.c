/* Owns the values that ops under test are given: random, and such as the op can meet. Pure functions of a seed. */
#include "op_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/sixteen_bit.h"

void *test_alloc(size_t bytes)
{
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (!memory)
        fail_msg("no memory for %zu bytes", bytes);
    return memory;
}

static double uniform(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0xD1342543DE82EF95u + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

void fill_random(double *value, int64_t count, uint64_t seed)
{
    for (int64_t i = 0; i < count; i++)
        value[i] = (2 * uniform(seed, (uint64_t)i) - 1) * sqrt(3.0);
}

static bool is_sums(const kernel_request *r, int index)
{
    switch (r->node.op) {
    case OP_BN_NORMALIZE:
    case OP_BN_GRAD_SUMS:
    case OP_BN_GRAD:
    case OP_UPSAMPLE_BN:
    case OP_UPSAMPLE_BN_GRAD_SUMS:
    case OP_UPSAMPLE_BN_GRAD:
        return index == 1;
    case OP_LINEAR_BN:
    case OP_LINEAR_BN_WGRAD:
        return index == 2;
    case OP_LINEAR_BN_GRAD_SUMS:
    case OP_LINEAR_BN_DGRAD:
        return index == 3;
    case OP_BN_RUNNING:
        return index == 0;
    default:
        return false;
    }
}

/* Sums over attr.count values of a random mean and a variance in 0.5..1.5. */
static void fill_sums(test_tensor *t, double count, uint64_t seed)
{
    int channels = t->desc.dim[3];
    for (int c = 0; c < channels; c++) {
        double mean = t->real[c], variance = 0.5 + uniform(seed, (uint64_t)c);
        t->real[c] = mean * count;
        t->real[channels + c] = (variance + mean * mean) * count;
    }
}

/* Positive by nature, or kept away from zero so that a ReLU's kink can be avoided. */
static bool is_scale(const kernel_request *r, int index)
{
    unsigned op = r->node.op;
    bool variance = (op == OP_BN_RUNNING && index == 2) || (op == OP_BN_INFERENCE && index == 2) ||
                    (op == OP_UPSAMPLE_BN_INFERENCE && index == 2);
    bool gamma = (op == OP_BN_GRAD_SUMS || op == OP_BN_GRAD || op == OP_UPSAMPLE_BN_GRAD_SUMS) && index == 2;
    bool scaling = (op == OP_LOSS_SCALE) ||
                   ((op == OP_CROSS_ENTROPY_GRAD || op == OP_KD_LOSS_GRAD || op == OP_FEATURE_LOSS_GRAD) && index == 2);
    bool factor = scaling || (op == OP_SGD_UPDATE && (index == 3 || index == 4)) ||
                  (op == OP_LARS_RATE && (index == 2 || index == 3)) || (op == OP_SUM_SQUARES && index == 1) ||
                  op == OP_CLIP_FACTOR;
    return variance || gamma || factor;
}

/* Where the mask is computed again from x, rounding must not decide it: moves x until |y| is at least 0.005. */
static void avoid_kinks(test_tensor in[NODE_MAX_IN], const kernel_request *r)
{
    const double *sums = in[1].real, *gamma = in[2].real, *beta = in[3].real;
    int channels = in[0].desc.dim[3];
    for (int64_t i = 0; i < tensor_count(&in[0].desc); i++) {
        int c = (int)(i % channels);
        double mean = sums[c] / r->node.attr.count;
        double std = sqrt(sums[channels + c] / r->node.attr.count - mean * mean + r->node.attr.eps);
        double y = gamma[c] * (in[0].real[i] - mean) / std + beta[c];
        if (fabs(y) < 0.005)
            in[0].real[i] += 0.01 * std / gamma[c];
    }
}

/* Position `i` of the line of 2n that a line of n values, `stride` apart, is upsampled to. */
static double between(const double *value, int i, int n, int64_t stride)
{
    double position = (double)i * (n - 1) / (2 * n - 1);
    int first = i * (n - 1) / (2 * n - 1), second = first + 1 < n ? first + 1 : first;
    return value[first * stride] + (position - first) * (value[second * stride] - value[first * stride]);
}

/* The smallest |y| of a channel of the upsampled feature map. */
static double smallest_of_upsampled(const test_tensor in[NODE_MAX_IN], const kernel_request *r, int c)
{
    const double *sums = in[1].real;
    int h = in[0].desc.dim[1], w = in[0].desc.dim[2], channels = in[0].desc.dim[3];
    double mean = sums[c] / r->node.attr.count;
    double std = sqrt(sums[channels + c] / r->node.attr.count - mean * mean + r->node.attr.eps), smallest = INFINITY;
    for (int line = 0; line < in[0].desc.dim[0] * 2 * h; line++)
        for (int i = 0; i < 2 * w; i++) {
            const double *z = in[0].real + (int64_t)(line / (2 * h)) * h * w * channels + c;
            int x = i * (w - 1) / (2 * w - 1), next = x + 1 < w ? x + 1 : x;
            int64_t down = (int64_t)w * channels;
            double ends[2] = {between(z + x * channels, line % (2 * h), h, down),
                              between(z + next * channels, line % (2 * h), h, down)};
            double share = (double)i * (w - 1) / (2 * w - 1) - x;
            double y = in[2].real[c] * (ends[0] + share * (ends[1] - ends[0]) - mean) / std + in[3].real[c];
            smallest = fmin(smallest, fabs(y));
        }
    return smallest;
}

/* The same for an upsampled feature map, whose values move together: moves beta until no |y| is below 1e-4. */
static void avoid_upsampled_kinks(test_tensor in[NODE_MAX_IN], const kernel_request *r)
{
    for (int c = 0; c < in[0].desc.dim[3]; c++)
        while (smallest_of_upsampled(in, r, c) < 1e-4)
            in[3].real[c] += 5e-4;
}

/* The output of a ReLU, as the gradient op is given it. */
static bool is_rectified(const kernel_request *r, int index)
{
    return (r->node.op == OP_BN_GRAD_SUMS && index == 4) || (r->node.op == OP_RELU_GRAD && index == 0) ||
           (r->node.op == OP_EXCITE_GRAD && index == 2);
}

static bool is_gradient_sums(unsigned op, int index)
{
    return ((op == OP_BN_GRAD || op == OP_LINEAR_BN_WGRAD) && index == 4) ||
           (op == OP_UPSAMPLE_BN_GRAD && index == 3) || (op == OP_LINEAR_BN_DGRAD && index == 5);
}

/* In place of about a third of the values. */
static void put_not_finite(test_tensor *t, uint64_t seed)
{
    const double values[3] = {INFINITY, -INFINITY, NAN};
    for (int64_t i = 0; i < tensor_count(&t->desc); i += 1 + (int64_t)(5 * uniform(seed, (uint64_t)i)))
        t->real[i] = values[i % 3];
}

static void fill_input(test_tensor *t, const kernel_request *r, int index, uint64_t seed)
{
    int64_t count = tensor_count(&t->desc);
    fill_random(t->real, count, seed);
    for (int64_t i = 0; i < count && is_scale(r, index); i++)
        t->real[i] = 0.5 + uniform(seed, (uint64_t)i);
    if (is_sums(r, index))
        fill_sums(t, r->node.attr.count, seed + 1);
    bool gradient_sums = is_gradient_sums(r->node.op, index);
    bool ties = r->node.op == OP_TOP_K || (r->node.op == OP_MAX_POOL_GRAD && index == 0);
    for (int64_t i = 0; i < count && gradient_sums; i++)
        t->real[i] *= 0.1 * r->node.attr.count;
    for (int64_t i = 0; i < count && is_rectified(r, index); i++)
        t->real[i] = fmax(t->real[i], 0);
    for (int64_t i = 0; i < count && ties; i++) /* so that some values tie */
        t->real[i] = rint(t->real[i] * 4) / 4;
    if (r->node.op == OP_COUNT_NOT_FINITE || (r->node.op == OP_METRIC_WATCH && index == 0))
        put_not_finite(t, seed + 2);
}

static double rounded(double value, uint8_t type)
{
    switch (type) {
    case DTYPE_F32:
        return (double)(float)value;
    case DTYPE_F16:
        return (double)float16_value(float16_from((float)value));
    case DTYPE_BF16:
        return (double)bfloat16_value(bfloat16_from((float)value));
    default:
        return value;
    }
}

static void round_inputs(test_tensor in[NODE_MAX_IN], const kernel_request *r)
{
    for (int i = 0; i < r->node.n_in; i++)
        for (int64_t k = 0; in[i].real && k < tensor_count(&in[i].desc); k++)
            in[i].real[k] = rounded(in[i].real[k], in[i].desc.dtype);
}

/* How many values element `k` of an integer input may have, from 0 on: bytes, classes, choices. */
static int32_t integers(const kernel_request *r, int index, int64_t k)
{
    const int32_t choices[4] = {r->in[0].dim[0], 2 * r->node.attr.pad + 1, 2 * r->node.attr.pad + 1, 2};
    if (r->node.op == OP_MAX_POOL_GRAD)
        return r->node.attr.kernel * r->node.attr.kernel;
    if (r->in[index].dtype == DTYPE_U8)
        return 256;
    return r->node.op == OP_IMAGES ? choices[k % 4] : r->in[0].dim[3];
}

void op_inputs_init(test_tensor in[NODE_MAX_IN], const kernel_request *r, uint64_t seed)
{
    memset(in, 0, NODE_MAX_IN * sizeof *in);
    for (int i = 0; i < r->node.n_in; i++) {
        int64_t count = tensor_count(&r->in[i]);
        in[i].desc = r->in[i];
        if (count == 0)
            continue;
        if (r->in[i].dtype == DTYPE_I32 || r->in[i].dtype == DTYPE_U8) {
            in[i].integer = test_alloc((size_t)count * sizeof(int32_t));
            for (int64_t k = 0; k < count; k++)
                in[i].integer[k] = (int32_t)(uniform(seed, (uint64_t)k) * integers(r, i, k));
        } else {
            in[i].real = test_alloc((size_t)count * sizeof(double));
            fill_input(&in[i], r, i, seed * 1000 + (uint64_t)i * 10);
        }
    }
    bool mask_from_x = (r->node.op == OP_BN_GRAD_SUMS && !in[4].real) || r->node.op == OP_BN_GRAD;
    if (mask_from_x && r->node.attr.relu)
        avoid_kinks(in, r);
    round_inputs(in, r);
    if (r->node.op == OP_UPSAMPLE_BN_GRAD_SUMS && r->node.attr.relu) {
        avoid_upsampled_kinks(in, r);
        round_inputs(in, r);
    }
}

void op_inputs_free(test_tensor in[NODE_MAX_IN])
{
    for (int i = 0; i < NODE_MAX_IN; i++) {
        free(in[i].real);
        free(in[i].integer);
    }
}

/* The native loops, compiled once for each instruction set; LOOPS_TABLE and LOOPS_NAME come from the build.
 *
 * Memory is the limit of almost all of them. So each tensor is touched once, in order, and a value that is needed twice
 * waits in a small buffer in the first-level cache. Sums run in float32 over SUM_ROWS rows only and in float64 beyond.
 * The loops of a topic stand in loops_*.h. Stateless; any number of threads. */
#include "loops_block.h"
#include "loops_bn.h"
#include "loops_pool.h"
#include "loops_upsample.h"

#include <float.h>
#include <math.h>

static void copy(float *to, const float *from, int64_t count, bool stream)
{
    if (stream)
        stream_block(to, from, count);
    else
        memcpy(to, from, (size_t)count * sizeof *to);
    stream_end(stream);
}

static void add(const float *const *x, int terms, float *y, int64_t begin, int64_t end, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t count = smaller(BLOCK, end - at);
        add_block(x, terms, stream ? buffer : y + at, at, count);
        if (stream)
            stream_block(y + at, buffer, count);
    }
    stream_end(stream);
}

static void relu(const float *x, float *y, int64_t count, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = smaller(BLOCK, count - at);
        const float *in = x + at;
        float *out = stream ? buffer : y + at;
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = rectify(in[i]);
        if (stream)
            stream_block(y + at, buffer, n);
    }
    stream_end(stream);
}

static void relu_grad(const float *y, const float *dy, float *dx, int64_t count, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = smaller(BLOCK, count - at);
        mask_by_y(y + at, dy + at, stream ? buffer : dx + at, n);
        if (stream)
            stream_block(dx + at, buffer, n);
    }
    stream_end(stream);
}

static void excite_grad(const float *r, const float *y, const float *dy, const float *gate, float *dr, float *dshortcut,
                        int64_t rows, int64_t channels, double *sums, float *scratch)
{
    float *restrict sum = scratch, *buffer = scratch + channels;
    memset(sum, 0, (size_t)channels * sizeof *sum);
    for (int64_t row = 0; row < rows; row++, r += channels, y += channels, dy += channels) {
        float *g = dshortcut ? dshortcut + row * channels : buffer;
        mask_by_y(y, dy, g, channels);
#pragma omp simd
        for (int64_t c = 0; c < channels; c++)
            sum[c] += g[c] * r[c];
        if (dr) {
            float *restrict out = dr + row * channels;
#pragma omp simd
            for (int64_t c = 0; c < channels; c++)
                out[c] = gate[c] * g[c];
        }
        if (row % SUM_ROWS == SUM_ROWS - 1)
            flush_sums(sum, sums, channels);
    }
    flush_sums(sum, sums, channels);
}

static double sum_squares(const float *x, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static double count_not_finite(const float *x, int64_t count)
{
    int64_t found = 0;
#pragma omp simd reduction(+ : found)
    for (int64_t i = 0; i < count; i++)
        found += !(fabsf(x[i]) <= FLT_MAX);
    return (double)found;
}

static void sgd_update(float *w, float *v, const float *dw, int64_t count, float lr, float factor, float momentum,
                       float decay, bool nesterov)
{
    if (nesterov) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float g = factor * dw[i] + decay * w[i];
            v[i] = momentum * v[i] + g;
            w[i] -= lr * (g + momentum * v[i]);
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            v[i] = momentum * v[i] + (factor * dw[i] + decay * w[i]);
            w[i] -= lr * v[i];
        }
    }
}

static void ema_update(const float *x, float *ema, int64_t count, float share)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        ema[i] += share * (x[i] - ema[i]);
}

const cpu_loops LOOPS_TABLE = {
    .name = LOOPS_NAME,
    .channel_sums = channel_sums,
    .bn_normalize = bn_normalize,
    .bn_grad_sums = bn_grad_sums,
    .bn_grad = bn_grad,
    .add = add,
    .copy = copy,
    .upsample_row = upsample_row,
    .upsample_grad_row = upsample_grad_row,
    .gather = gather,
    .upsample_bn_sums = upsample_bn_sums,
    .upsample_bn_grad_add = upsample_bn_grad_add,
    .upsample_bn_grad = upsample_bn_grad,
    .relu = relu,
    .relu_grad = relu_grad,
    .max_pool_row = max_pool_row,
    .max_pool_grad_row = max_pool_grad_row,
    .excite_grad = excite_grad,
    .sum_squares = sum_squares,
    .count_not_finite = count_not_finite,
    .sgd_update = sgd_update,
    .ema_update = ema_update,
};

/* The native loops, compiled once for each instruction set; LOOPS_TABLE and LOOPS_NAME come from the build.
 *
 * Memory is the limit of almost all of them. So each tensor is touched once, in order, and a value that is needed twice
 * waits in a small buffer in the first-level cache. Sums run in float32 over SUM_ROWS rows
 * only and in float64 beyond. Stateless; any number of threads. */
#include "loops.h"

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

enum {
    BLOCK = 1024, /* floats of a buffer in the first-level cache */
    SUM_ROWS = 64
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void stream_block(float *to, const float *from, int64_t count)
{
#if defined(__AVX512F__)
    for (int64_t i = 0; i < count; i += 16)
        _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
#elif defined(__AVX__)
    for (int64_t i = 0; i < count; i += 8)
        _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
#else
    for (int64_t i = 0; i < count; i += 4)
        _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#endif
}

/* Streamed stores are not ordered with others: before another thread reads them, this. */
static void stream_end(bool stream)
{
    if (stream)
        _mm_sfence();
}

static void copy(float *to, const float *from, int64_t count, bool stream)
{
    if (stream)
        stream_block(to, from, count);
    else
        memcpy(to, from, (size_t)count * sizeof *to);
    stream_end(stream);
}

static void flush_sums(float *block, double *sums, int64_t count)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        sums[c] += (double)block[c];
    memset(block, 0, (size_t)count * sizeof *block);
}

static void channel_sums(const float *x, int64_t rows, int64_t channels, bool squares, double *sums, float *scratch)
{
    float *restrict sum = scratch, *restrict square = scratch + channels;
    int64_t width = squares ? 2 * channels : channels;
    memset(scratch, 0, (size_t)width * sizeof *scratch);
    for (int64_t r = 0; r < rows; r++, x += channels) {
        if (squares) {
#pragma omp simd
            for (int64_t c = 0; c < channels; c++) {
                sum[c] += x[c];
                square[c] += x[c] * x[c];
            }
        } else {
#pragma omp simd
            for (int64_t c = 0; c < channels; c++)
                sum[c] += x[c];
        }
        if (r % SUM_ROWS == SUM_ROWS - 1)
            flush_sums(scratch, sums, width);
    }
    flush_sums(scratch, sums, width);
}

/* Written so that a NaN stays one. */
static inline float rectify(float v)
{
    return v < 0.0F ? 0.0F : v;
}

/* The one formula of the normalised value: the backward must find the same sign as the forward. */
static inline float normalized(float x, float scale, float shift)
{
    return x * scale + shift;
}

/* g where v > 0, else 0. A product and not a choice, which would become a load under a mask: that load waits
 * for v, and memory is read at half the speed. */
static inline float where_positive(float v, float g)
{
    return g * (v > 0.0F ? 1.0F : 0.0F);
}

static void normalize_block(const float *x, const float *residual, float *y, int64_t count, const float *scale,
                            const float *shift, bool relu)
{
    if (residual && relu) {
#pragma omp simd
        for (int64_t c = 0; c < count; c++)
            y[c] = rectify(normalized(x[c], scale[c], shift[c]) + residual[c]);
    } else if (residual) {
#pragma omp simd
        for (int64_t c = 0; c < count; c++)
            y[c] = normalized(x[c], scale[c], shift[c]) + residual[c];
    } else if (relu) {
#pragma omp simd
        for (int64_t c = 0; c < count; c++)
            y[c] = rectify(normalized(x[c], scale[c], shift[c]));
    } else {
#pragma omp simd
        for (int64_t c = 0; c < count; c++)
            y[c] = normalized(x[c], scale[c], shift[c]);
    }
}

static void bn_normalize(const float *x, const float *residual, float *y, int64_t rows, int64_t channels,
                         const bn_tables *tables, bool relu, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c += BLOCK) {
            int64_t at = r * channels + c, count = smaller(BLOCK, channels - c);
            normalize_block(x + at, residual ? residual + at : NULL, stream ? buffer : y + at, count, tables->scale + c,
                            tables->shift + c, relu);
            if (stream)
                stream_block(y + at, buffer, count);
        }
    stream_end(stream);
}

static void add_block(const float *const *x, int terms, float *y, int64_t at, int64_t count)
{
    const float *a = x[0] + at, *b = x[1] + at;
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = a[i] + b[i];
    for (int t = 2; t < terms; t++) {
        const float *term = x[t] + at;
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] += term[i];
    }
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

static void mask_by_y(const float *y, const float *dy, float *g, int64_t count)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        g[c] = where_positive(y[c], dy[c]);
}

static void mask_by_x(const float *x, const float *dy, float *g, int64_t count, const bn_tables *t)
{
    const float *scale = t->scale, *shift = t->shift;
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        g[c] = where_positive(normalized(x[c], scale[c], shift[c]), dy[c]);
}

/* One row of g: where it lies in dy when there is nothing to do, else in `g`. */
static const float *gradient_row(const bn_gradient *b, int64_t at, int64_t channels, const bn_tables *tables, float *g)
{
    const float *dy = b->dy[0] + at;
    if (b->dys > 1) {
        add_block(b->dy, b->dys, g, at, channels);
        dy = g;
    }
    if (!b->relu)
        return dy;
    if (b->y)
        mask_by_y(b->y + at, dy, g, channels);
    else
        mask_by_x(b->x + at, dy, g, channels, tables);
    return g;
}

static void accumulate(const float *x, const float *g, int64_t count, const float *mean, float *restrict sum,
                       float *restrict product)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++) {
        sum[c] += g[c];
        product[c] += g[c] * (x[c] - mean[c]);
    }
}

/* The usual case in one pass: one dy, the mask from x, g not kept. */
static void accumulate_masked(const float *x, const float *dy, int64_t count, const bn_tables *t, float *restrict sum,
                              float *restrict product)
{
    const float *scale = t->scale, *shift = t->shift, *mean = t->mean;
#pragma omp simd
    for (int64_t c = 0; c < count; c++) {
        float g = where_positive(normalized(x[c], scale[c], shift[c]), dy[c]);
        sum[c] += g;
        product[c] += g * (x[c] - mean[c]);
    }
}

static void bn_grad_sums(const bn_gradient *gradient, int64_t begin, int64_t rows, int64_t channels,
                         const bn_tables *tables, double *sums, float *scratch, bool stream)
{
    float *restrict sum = scratch, *restrict product = scratch + channels, *buffer = scratch + 2 * channels;
    bool one_pass = gradient->dys == 1 && gradient->relu && !gradient->y && !gradient->g;
    memset(scratch, 0, 2 * (size_t)channels * sizeof *scratch);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = (begin + r) * channels;
        const float *x = gradient->x + at;
        float *out = gradient->g ? gradient->g + at : NULL;
        if (one_pass) {
            accumulate_masked(x, gradient->dy[0] + at, channels, tables, sum, product);
        } else {
            const float *g = gradient_row(gradient, at, channels, tables, out && !stream ? out : buffer);
            accumulate(x, g, channels, tables->mean, sum, product);
            if (out && stream)
                stream_block(out, g, channels);
            else if (out && g != out)
                memcpy(out, g, (size_t)channels * sizeof *out);
        }
        if (r % SUM_ROWS == SUM_ROWS - 1)
            flush_sums(scratch, sums, 2 * channels);
    }
    flush_sums(scratch, sums, 2 * channels);
    stream_end(stream);
}

static void grad_block(const float *x, const float *dy, float *dx, int64_t first, int64_t count, const bn_tables *t,
                       bool relu)
{
    const float *scale = t->scale + first, *shift = t->shift + first, *mean = t->mean + first;
    const float *from_g = t->from_g + first, *from_x = t->from_x + first, *constant = t->constant + first;
    if (relu) {
#pragma omp simd
        for (int64_t c = 0; c < count; c++) {
            float g = where_positive(normalized(x[c], scale[c], shift[c]), dy[c]);
            dx[c] = from_g[c] * g + (from_x[c] * (x[c] - mean[c]) + constant[c]);
        }
    } else {
#pragma omp simd
        for (int64_t c = 0; c < count; c++)
            dx[c] = from_g[c] * dy[c] + (from_x[c] * (x[c] - mean[c]) + constant[c]);
    }
}

static void bn_grad(const float *x, const float *dy, float *dx, int64_t rows, int64_t channels, const bn_tables *tables,
                    bool relu, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c += BLOCK) {
            int64_t at = r * channels + c, count = smaller(BLOCK, channels - c);
            grad_block(x + at, dy + at, stream ? buffer : dx + at, c, count, tables, relu);
            if (stream)
                stream_block(dx + at, buffer, count);
        }
    stream_end(stream);
}

static void blend(const float *a, const float *b, float weight, float *y, int64_t count)
{
    float rest = 1.0F - weight;
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = rest * a[i] + weight * b[i];
}

static void upsample_row(const float *top, const float *bottom, float weight, const upsample_tap *tap, int64_t width,
                         int64_t columns, int64_t channels, float *y, float *scratch, bool stream)
{
    _Alignas(64) float buffer[BLOCK];
    blend(top, bottom, weight, scratch, width * channels);
    for (int64_t i = 0; i < columns; i++, y += channels)
        for (int64_t c = 0; c < channels; c += BLOCK) {
            int64_t count = smaller(BLOCK, channels - c);
            const float *left = scratch + tap[i].index * channels + c, *right = scratch + tap[i].next * channels + c;
            blend(left, right, tap[i].weight, stream ? buffer : y + c, count);
            if (stream)
                stream_block(y + c, buffer, count);
        }
    stream_end(stream);
}

static void gather(const float *x, int64_t stride, const upsample_sources *sources, float *y, int64_t count)
{
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = smaller(BLOCK, count - at);
        float *restrict out = y + at;
        const float *restrict in = x + sources->first * stride + at;
        float weight = sources->weight[0];
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = weight * in[i];
        for (int s = 1; s < sources->end - sources->first; s++) {
            in += stride;
            weight = sources->weight[s];
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                out[i] += weight * in[i];
        }
    }
}

static void upsample_grad_row(const float *dy, const upsample_sources *row, const upsample_sources *column,
                              int64_t width, int64_t columns, int64_t channels, float *dx, float *scratch)
{
    gather(dy, columns * channels, row, scratch, columns * channels);
    for (int64_t i = 0; i < width; i++)
        gather(scratch, channels, &column[i], dx + i * channels, channels);
}

static void upsample_bn_sums(const float *z, const float *product, const float *share, int64_t pixels, int64_t channels,
                             double *sums, float *scratch)
{
    float *restrict sum = scratch, *restrict square = scratch + channels;
    memset(scratch, 0, 2 * (size_t)channels * sizeof *scratch);
    for (int64_t p = 0; p < pixels; p++, z += channels, product += channels) {
        float weight = share[p];
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            sum[c] += weight * z[c];
            square[c] += z[c] * product[c];
        }
        if (p % SUM_ROWS == SUM_ROWS - 1)
            flush_sums(scratch, sums, 2 * channels);
    }
    flush_sums(scratch, sums, 2 * channels);
}

static void upsample_bn_grad_add(const upsample_bn_row *row, float weight, int64_t pixels, int64_t channels,
                                 const bn_tables *tables, float *upper, float *lower)
{
    const float *scale = tables->scale, *shift = tables->shift;
    float rest = 1.0F - weight;
    for (int64_t p = 0; p < pixels; p++) {
        const float *x = row->x + p * channels, *dy = row->dy + p * channels;
        float *restrict above = upper + p * channels, *restrict below = lower + p * channels;
        bool relu = row->relu;
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float g = relu ? where_positive(normalized(x[c], scale[c], shift[c]), dy[c]) : dy[c];
            above[c] += rest * g;
            below[c] += weight * g;
        }
    }
}

static void upsample_bn_grad(const float *product, const float *dg, float *dz, const float *share, int64_t pixels,
                             int64_t channels, const bn_tables *tables)
{
    const float *from_g = tables->from_g, *from_x = tables->from_x, *constant = tables->constant;
    for (int64_t p = 0; p < pixels; p++, product += channels, dg += channels, dz += channels) {
        float weight = share[p];
#pragma omp simd
        for (int64_t c = 0; c < channels; c++)
            dz[c] = from_g[c] * dg[c] + (from_x[c] * product[c] + weight * constant[c]);
    }
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

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The part of window `i` along one axis of `size` elements. */
typedef struct {
    int64_t begin, end;
} window;

static window window_on(const pool_windows *w, int64_t i, int64_t size)
{
    int64_t first = i * w->stride - w->pad;
    return (window){larger(first, 0), smaller(first + w->kernel, size)};
}

/* The larger; a NaN wins. */
static inline float maximum_of(float a, float b)
{
    return a > b || a != a ? a : b;
}

/* y = the elementwise maximum of `rows` >= 1 rows of x, `count` apart. */
static void maximum(const float *x, int64_t rows, float *y, int64_t count)
{
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = smaller(BLOCK, count - at);
        const float *first = x + at, *second = x + (rows > 1 ? count : 0) + at;
        float *restrict out = y + at;
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = maximum_of(first[i], second[i]);
        for (int64_t r = 2; r < rows; r++) {
            const float *next = x + r * count + at;
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                out[i] = maximum_of(out[i], next[i]);
        }
    }
}

/* Down the columns first: what windows side by side share is compared once. */
static void max_pool_row(const pool_windows *w, const float *x, int64_t row, float *y, float *scratch)
{
    window v = window_on(w, row, w->height);
    maximum(x + v.begin * w->width * w->channels, v.end - v.begin, scratch, w->width * w->channels);
    for (int64_t i = 0; i < w->out_width; i++) {
        window h = window_on(w, i, w->width);
        maximum(scratch + h.begin * w->channels, h.end - h.begin, y + i * w->channels, w->channels);
    }
}

/* Where in its window each channel's largest element is, or its last NaN: the number of the position, counted along the
 * rows. */
static void find_largest(const float *x, const pool_windows *w, window v, window h, int32_t *restrict place,
                         float *restrict best, int64_t count)
{
    int32_t position = 0;
    for (int64_t r = v.begin; r < v.end; r++)
        for (int64_t i = h.begin; i < h.end; i++, position++) {
            const float *in = x + (r * w->width + i) * w->channels;
            if (position == 0) {
                memcpy(best, in, (size_t)count * sizeof *best);
                memset(place, 0, (size_t)count * sizeof *place);
                continue;
            }
#pragma omp simd
            for (int64_t c = 0; c < count; c++) {
                bool wins = in[c] > best[c] || in[c] != in[c];
                place[c] = wins ? position : place[c];
                best[c] = wins ? in[c] : best[c];
            }
        }
}

static void max_pool_grad_row(const pool_windows *w, const float *x, int64_t row, const float *dy, float *dx,
                              int64_t begin, int64_t end)
{
    _Alignas(64) int32_t place[BLOCK];
    _Alignas(64) float best[BLOCK];
    window v = window_on(w, row, w->height);
    for (int64_t i = 0; i < w->out_width; i++, dy += w->channels)
        for (int64_t first = 0; first < w->channels; first += BLOCK) {
            int64_t n = smaller(BLOCK, w->channels - first);
            window h = window_on(w, i, w->width);
            find_largest(x + first, w, v, h, place, best, n);
            for (int64_t r = larger(v.begin, begin); r < smaller(v.end, end); r++)
                for (int64_t j = h.begin; j < h.end; j++) {
                    int32_t position = (int32_t)((r - v.begin) * (h.end - h.begin) + j - h.begin);
                    const float *gradient = dy + first;
                    float *restrict out = dx + (r * w->width + j) * w->channels + first;
#pragma omp simd
                    for (int64_t c = 0; c < n; c++)
                        out[c] += place[c] == position ? gradient[c] : 0.0F;
                }
        }
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

/* The loops of batch normalisation. Included by loops.c alone. */
#ifndef TESKD_KERNELS_CPU_LOOPS_BN_H
#define TESKD_KERNELS_CPU_LOOPS_BN_H

#include "loops_block.h"

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

#endif

/* The loops of the bilinear upsample, and of batch normalisation after it. Included by loops.c alone. */
#ifndef TESKD_KERNELS_CPU_LOOPS_UPSAMPLE_H
#define TESKD_KERNELS_CPU_LOOPS_UPSAMPLE_H

#include "loops_block.h"

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

#endif

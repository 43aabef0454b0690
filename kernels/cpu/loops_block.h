/* What the native loops share: blocks of floats that are streamed, summed, masked. Included by loops.c alone. */
#ifndef TESKD_KERNELS_CPU_LOOPS_BLOCK_H
#define TESKD_KERNELS_CPU_LOOPS_BLOCK_H

#include "loops.h"

#include <immintrin.h>
#include <string.h>

enum {
    BLOCK = 1024, /* floats of a buffer in the first-level cache */
    SUM_ROWS = 64
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
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

static void flush_sums(float *block, double *sums, int64_t count)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        sums[c] += (double)block[c];
    memset(block, 0, (size_t)count * sizeof *block);
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

static void mask_by_y(const float *y, const float *dy, float *g, int64_t count)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        g[c] = where_positive(y[c], dy[c]);
}

#endif

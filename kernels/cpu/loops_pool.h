/* The loops of maxima over windows. Included by loops.c alone. */
#ifndef TESKD_KERNELS_CPU_LOOPS_POOL_H
#define TESKD_KERNELS_CPU_LOOPS_POOL_H

#include "loops_block.h"

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

#endif

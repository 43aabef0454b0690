/* The backend's native loops: one table for each instruction set, made from the same source.
 *
 * Every function is serial and works on the rows it is given; the callers split rows over threads.
 * Matrices are rows x channels, row-major, float32. `stream` writes past the cache: then rows are
 * 64-byte aligned and multiples of 16 long.
 */
#ifndef TESKD_KERNELS_CPU_LOOPS_H
#define TESKD_KERNELS_CPU_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Batch normalisation by channel: y = scale*x + shift; the rest only for the backward. */
typedef struct {
    const float *scale, *shift, *mean;
    const float *from_g, *from_x, *constant; /* dx = from_g*g + from_x*(x - mean) + constant */
} bn_tables;

enum { BN_MAX_DY = 5 };

/* Where g = (sum of dy) * mask comes from. */
typedef struct {
    const float *x, *dy[BN_MAX_DY];
    int dys;
    const float *y; /* mask: y > 0 */
    bool relu;      /* mask: y > 0, or without y scale*x + shift > 0 */
    float *g;       /* also written when not NULL */
} bn_gradient;

/* One output position of the bilinear upsample: out = (1 - weight)*in[index] + weight*in[next]. */
typedef struct {
    int32_t index, next;
    float weight;
} upsample_tap;

/* One input position of its gradient: in = sum over first <= i < end of weight[i - first]*out[i]. */
enum { UPSAMPLE_MAX_SOURCES = 5 };
typedef struct {
    int32_t first, end;
    float weight[UPSAMPLE_MAX_SOURCES];
} upsample_sources;

/* One row of an upsampled feature map: x, made from z, and the gradient of what batch normalisation makes of it. */
typedef struct {
    const float *x, *dy;
    bool relu; /* g = dy where scale*x + shift > 0, else 0; otherwise g = dy */
} upsample_bn_row;

/* The windows of a pooling of a `height` x `width` feature map. */
typedef struct {
    int64_t height, width, channels;
    int64_t out_height, out_width;
    int64_t kernel, stride, pad;
} pool_windows;

typedef struct {
    const char *name;

    /* sums[c] += sum of x; with squares, sums[channels + c] += sum of x^2. scratch: 2*channels. */
    void (*channel_sums)(const float *x, int64_t rows, int64_t channels, bool squares, double *sums, float *scratch);

    /* y = scale*x + shift, + residual unless NULL, ReLU last. y may be x. */
    void (*bn_normalize)(const float *x, const float *residual, float *y, int64_t rows, int64_t channels,
                         const bn_tables *tables, bool relu, bool stream);

    /* sums[c] += sum of g, sums[channels + c] += sum of g*(x - mean) over `rows` from `begin`. scratch: 3*channels. */
    void (*bn_grad_sums)(const bn_gradient *gradient, int64_t begin, int64_t rows, int64_t channels,
                         const bn_tables *tables, double *sums, float *scratch, bool stream);

    /* dx by the tables' formula; relu: g = dy where scale*x + shift > 0, else 0. dx may be dy. */
    void (*bn_grad)(const float *x, const float *dy, float *dx, int64_t rows, int64_t channels, const bn_tables *tables,
                    bool relu, bool stream);

    /* y[begin..end) = x[0] + ... + x[terms - 1]. y may be x[0]. */
    void (*add)(const float *const *x, int terms, float *y, int64_t begin, int64_t end, bool stream);

    void (*copy)(float *to, const float *from, int64_t count, bool stream);

    /* One output row of `columns` pixels from the two input rows top and bottom (`width` pixels).
     * scratch: width*channels. */
    void (*upsample_row)(const float *top, const float *bottom, float weight, const upsample_tap *tap, int64_t width,
                         int64_t columns, int64_t channels, float *y, float *scratch, bool stream);

    /* One input row of `width` pixels from the output rows of `row` in the image dy (`columns` pixels per row).
     * scratch: columns*channels. */
    void (*upsample_grad_row)(const float *dy, const upsample_sources *row, const upsample_sources *column,
                              int64_t width, int64_t columns, int64_t channels, float *dx, float *scratch);

    /* y = sum over the sources of weight * x[i * stride ...], `count` elements each. */
    void (*gather)(const float *x, int64_t stride, const upsample_sources *sources, float *y, int64_t count);

    /* sums[c] += sum over the pixels of share * z, sums[channels + c] += sum of z * product. scratch: 2*channels. */
    void (*upsample_bn_sums)(const float *z, const float *product, const float *share, int64_t pixels, int64_t channels,
                             double *sums, float *scratch);

    /* upper += (1 - weight) * g, lower += weight * g. */
    void (*upsample_bn_grad_add)(const upsample_bn_row *row, float weight, int64_t pixels, int64_t channels,
                                 const bn_tables *tables, float *upper, float *lower);

    /* dz = from_g*dg + from_x*product + share*constant. dz may be dg. */
    void (*upsample_bn_grad)(const float *product, const float *dg, float *dz, const float *share, int64_t pixels,
                             int64_t channels, const bn_tables *tables);

    /* y = max(x, 0); dx = dy where y > 0, else 0. y may be x, dx may be dy. */
    void (*relu)(const float *x, float *y, int64_t count, bool stream);
    void (*relu_grad)(const float *y, const float *dy, float *dx, int64_t count, bool stream);

    /* One row of maxima, of an image x. scratch: width*channels. */
    void (*max_pool_row)(const pool_windows *w, const float *x, int64_t row, float *y, float *scratch);

    /* What a row of maxima, with gradient dy, adds to the rows [begin, end) of dx, which is an image like x. */
    void (*max_pool_grad_row)(const pool_windows *w, const float *x, int64_t row, const float *dy, float *dx,
                              int64_t begin, int64_t end);

    /* With g = dy where y > 0, else 0: dr = gate*g, dshortcut = g, sums[c] += sum of g*r; NULL: not wanted.
     * scratch: 2*channels. */
    void (*excite_grad)(const float *r, const float *y, const float *dy, const float *gate, float *dr, float *dshortcut,
                        int64_t rows, int64_t channels, double *sums, float *scratch);

    /* In float64. */
    double (*sum_squares)(const float *x, int64_t count);

    /* How many are infinite or no number. */
    double (*count_not_finite)(const float *x, int64_t count);

    /* g = factor*dw + decay*w; v = momentum*v + g; w -= lr * (nesterov ? g + momentum*v : v). */
    void (*sgd_update)(float *w, float *v, const float *dw, int64_t count, float lr, float factor, float momentum,
                       float decay, bool nesterov);

    /* EMA += share * (x - EMA). */
    void (*ema_update)(const float *x, float *ema, int64_t count, float share);
} cpu_loops;

extern const cpu_loops cpu_loops_baseline, cpu_loops_avx2, cpu_loops_avx512;

#endif

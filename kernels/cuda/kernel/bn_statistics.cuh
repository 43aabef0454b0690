/* What batch normalisation knows of its channels, and the tables that a block makes of it. The block's threads fill
 * those of its channels once, in double, and each keeps its own in registers. */
#ifndef TESKD_KERNELS_CUDA_BN_STATISTICS_CUH
#define TESKD_KERNELS_CUDA_BN_STATISTICS_CUH

#include "vector.cuh"

/* Where the rows of a feature map lie (graph/placement.h): tensor_row for a kernel. Patches are 1 << log_patch wide;
 * fewer than 2^32 rows. */
struct row_layout {
    int stride, width, log_patch;
};

static inline row_layout layout_of(const tensor_desc &t)
{
    row_layout l = {(int)tensor_row_stride(&t), t.dim[2], 0};
    while (t.patch >> l.log_patch > 1)
        l.log_patch++;
    return l;
}

/* The first element of a row. */
__device__ static inline int64_t row_begin(const row_layout &l, int64_t row)
{
    if (l.log_patch == 0)
        return row * l.stride;
    const unsigned width = (unsigned)l.width, line = (unsigned)row / width, x = (unsigned)row - line * width;
    const unsigned in_patch = (1u << l.log_patch) - 1;
    const unsigned patch = (line >> l.log_patch) * (width >> l.log_patch) + (x >> l.log_patch);
    const unsigned place = (((patch << l.log_patch) + (line & in_patch)) << l.log_patch) + (x & in_patch);
    return (int64_t)place * l.stride;
}

/* A channel's mean and variance come from the sums of a batch, or where those are NULL from the running statistics. */
struct bn_statistics {
    const double *sums;
    const float *mean, *variance, *gamma, *beta;
    double count, eps;
};

struct bn_moments {
    double mean, inverse_std;
};

__device__ static inline bn_moments moments_of(const bn_statistics &s, int channels, int c)
{
    double mean = s.sums ? s.sums[c] / s.count : (double)s.mean[c];
    double variance = s.sums ? s.sums[channels + c] / s.count - mean * mean : (double)s.variance[c];
    if (variance < 0) /* rounding can leave that of a constant channel just below zero */
        variance = 0;
    return bn_moments{mean, 1.0 / sqrt(variance + s.eps)};
}

/* Of a channel: dx = from_g * g + from_x * x + constant, which is ops.def's formula with xhat = (x - mean)/std. */
struct bn_gradient {
    double from_g, from_x, constant;
};

__device__ static inline bn_gradient gradient_of(const bn_statistics &s, const bn_moments &m, const double *gsums,
                                                 int channels, int c)
{
    const double from_g = (double)s.gamma[c] * m.inverse_std;
    const double from_x = -from_g * m.inverse_std * gsums[channels + c] / s.count;
    return bn_gradient{from_g, from_x, -from_g * gsums[c] / s.count - from_x * m.mean};
}

__device__ static inline float affine(float x, float scale, float shift)
{
    return fmaf(x, scale, shift);
}

/* What bn_running does with channel c; `shift` may be NULL. */
__device__ static inline void update_running(const double *sums, float *mean, float *variance, const float *shift,
                                             int channels, int c, double count, double momentum)
{
    if (!isfinite(sums[c]) || !isfinite(sums[channels + c]))
        return;
    double batch_mean = sums[c] / count, biased = sums[channels + c] / count - batch_mean * batch_mean;
    double unbiased = (biased < 0 ? 0 : biased) * count / fmax(count - 1, 1.0);
    double of_layer = batch_mean + (shift ? (double)shift[c] : 0);
    mean[c] = (float)((double)mean[c] + momentum * (of_layer - (double)mean[c]));
    variance[c] = (float)((double)variance[c] + momentum * (unbiased - (double)variance[c]));
}

static inline bn_statistics batch_statistics(const kernel *k, const kernel_args *args)
{
    bn_statistics s = {};
    s.sums = (const double *)args->in[1];
    s.gamma = (const float *)args->in[2];
    s.beta = (const float *)args->in[3];
    s.count = k->request.node.attr.count;
    s.eps = k->request.node.attr.eps;
    return s;
}

static inline bn_statistics running_statistics(const kernel *k, const kernel_args *args)
{
    bn_statistics s = {};
    s.mean = (const float *)args->in[1];
    s.variance = (const float *)args->in[2];
    s.gamma = (const float *)args->in[3];
    s.beta = (const float *)args->in[4];
    s.eps = k->request.node.attr.eps;
    return s;
}

/* ---- tables: a block fills those of its channels, a thread keeps its own in registers ---- */

/* table[row * LANES * V + i] of channel i of the tile, for V channels of a thread. */
template <int V> __device__ static inline void take_table(const float *table, int row, float (&to)[V])
{
#pragma unroll
    for (int v = 0; v < V; v++)
        to[v] = table[row * LANES * V + (int)threadIdx.x * V + v];
}

/* Rows 0 and 1 of channel c, the tile's channel i. */
template <int V>
__device__ static inline void put_affine(const bn_statistics &s, const bn_moments &m, int c, int i, float *table)
{
    const double scale = (double)s.gamma[c] * m.inverse_std;
    table[i] = (float)scale;
    table[LANES * V + i] = (float)((double)s.beta[c] - m.mean * scale);
}

/* Calls put(moments, channel, place in the tile) for each channel of the tile. */
template <int V, typename Put>
__device__ static inline void over_channels(const bn_statistics &s, int channels, Put put)
{
    for (int i = tile_thread(); i < tile_columns<V>() && tile_first<V>() + i < channels; i += THREADS)
        put(moments_of(s, channels, tile_first<V>() + i), tile_first<V>() + i, i);
}

template <int V> __device__ static inline void fill_affine(const bn_statistics &s, int channels, float *table)
{
    over_channels<V>(s, channels, [&](const bn_moments &m, int c, int i) { put_affine<V>(s, m, c, i, table); });
}

/* With the mean as row 2. */
template <int V> __device__ static inline void fill_affine_and_mean(const bn_statistics &s, int channels, float *table)
{
    over_channels<V>(s, channels, [&](const bn_moments &m, int c, int i) {
        put_affine<V>(s, m, c, i, table);
        table[2 * LANES * V + i] = (float)m.mean;
    });
}

/* The three rows of the gradient in the table. */
template <int V>
__device__ static inline void put_gradient(const bn_statistics &s, const bn_moments &m, const double *gsums,
                                           int channels, int c, float *table)
{
    const bn_gradient gradient = gradient_of(s, m, gsums, channels, c);
    table[0] = (float)gradient.from_g;
    table[LANES * V] = (float)gradient.from_x;
    table[2 * LANES * V] = (float)gradient.constant;
}

/* Makes the second sum that of g * xhat, and of the sums the gradients of gamma and beta, which may be NULL. */
struct gradient_totals {
    bn_statistics statistics;
    int channels;
    float *dgamma, *dbeta;

    __device__ double operator()(int i, double total) const
    {
        const bool first = i < channels;
        const int c = first ? i : i - channels;
        const double sum = first ? total : total * moments_of(statistics, channels, c).inverse_std;
        float *gradient = first ? dbeta : dgamma;
        if (gradient)
            gradient[c] = (float)sum;
        return sum;
    }
};

static inline gradient_totals totals_of(const bn_statistics &s, int channels, const kernel_args *args)
{
    return gradient_totals{s, channels, (float *)args->out[2], (float *)args->out[3]};
}

#endif

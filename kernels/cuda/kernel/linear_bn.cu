/* Batch normalisation of a product with a weight, from the moments of its input (docs/method.md): what has the size of
 * the weight. Sums of products are float in a thread, double beyond; the moments are x^T x, then the sums of x. */
#include "kernels/cuda/lower/linear_bn.h"

#include "bn_statistics.cuh"
#include "reduce.cuh"

/* ---- sums of the product ---- */

/* A block for each output, of whole warps. */
static __global__ void __launch_bounds__(THREADS)
    linear_bn_sums_kernel(const float *moments, const float *w, int outputs, int channels, double *sums)
{
    const float *row = w + (int64_t)blockIdx.x * channels, *x_sum = moments + (int64_t)channels * channels;
    double sum = 0, square_sum = 0;
    for (int c = (int)threadIdx.x; c < channels; c += (int)blockDim.x) {
        float of_column = 0; /* x^T x is symmetric: neighbouring threads read neighbouring elements */
#pragma unroll 8
        for (int d = 0; d < channels; d++)
            of_column = fmaf(row[d], moments[(int64_t)d * channels + c], of_column);
        sum += (double)row[c] * (double)x_sum[c];
        square_sum += (double)row[c] * (double)of_column;
    }
    sum = block_sum(sum);
    square_sum = block_sum(square_sum);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        sums[outputs + (int)blockIdx.x] = square_sum;
    }
}

/* Threads of a block that lie along `count` elements. */
static unsigned whole_warps(int64_t count)
{
    int64_t threads = divide_up(count, 32) * 32;
    return threads < THREADS ? (unsigned)threads : (unsigned)THREADS;
}

int cuda_linear_bn_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *w = &k->request.in[1];
    int outputs = w->dim[0], channels = k->request.in[0].dim[3];
    return launch(linear_bn_sums_kernel, dim3((unsigned)outputs), dim3(whole_warps(channels)), 0, self->stream,
                  (const float *)args->in[0], (const float *)args->in[1], outputs, channels, (double *)args->out[0]);
}

/* ---- weights ---- */

static bn_statistics statistics_of(const linear_bn_layer *l)
{
    bn_statistics s = {};
    s.sums = l->sums;
    s.gamma = l->gamma;
    s.beta = l->beta;
    s.count = l->count;
    s.eps = l->eps;
    return s;
}

/* A block for each output. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    fold_kernel(bn_statistics s, const float *w, int outputs, int channels, T *weight, T *bias)
{
    const int o = (int)blockIdx.x;
    const bn_moments m = moments_of(s, outputs, o);
    const double scale = (double)s.gamma[o] * m.inverse_std;
    for (int c = (int)threadIdx.x; c < channels; c += (int)blockDim.x)
        from_float((float)(scale * (double)w[(int64_t)o * channels + c]), weight[(int64_t)o * channels + c]);
    if (threadIdx.x == 0)
        from_float((float)((double)s.beta[o] - scale * m.mean), bias[o]);
}

int cuda_linear_bn_fold(const cuda_backend *self, const linear_bn_layer *l, void *weight, void *bias)
{
    return with_type((uint8_t)self->real, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(fold_kernel<T>, dim3((unsigned)l->outputs), dim3(whole_warps(l->channels)), 0, self->stream,
                      statistics_of(l), l->w, l->outputs, l->channels, (T *)weight, (T *)bias);
    });
}

/* The weight of g, and of each output what x and 1 are multiplied with (bn_gradient), as rows of the table. */
template <typename T>
__global__ void __launch_bounds__(THREADS) fold_gradient_kernel(bn_statistics s, const double *gsums, const float *w,
                                                                int outputs, int channels, T *from_g, float *table)
{
    const int o = (int)blockIdx.x;
    const bn_gradient gradient = gradient_of(s, moments_of(s, outputs, o), gsums, outputs, o);
    for (int c = (int)threadIdx.x; c < channels; c += (int)blockDim.x)
        from_float((float)(gradient.from_g * (double)w[(int64_t)o * channels + c]), from_g[(int64_t)o * channels + c]);
    if (threadIdx.x == 0) {
        table[o] = (float)gradient.from_x;
        table[outputs + o] = (float)gradient.constant;
    }
}

/* Row d of w^T diag(table) w in each blockIdx.y, and behind the last the constants, table[1] w. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    from_x_kernel(const float *w, const float *table, int outputs, int channels, T *from_x, T *constant)
{
    __shared__ float tile[THREADS];
    const int c = (int)(blockIdx.x * blockDim.x + threadIdx.x), d = (int)blockIdx.y;
    const bool is_constant = d == channels;
    float sum[1] = {0};
#pragma unroll 4
    for (int o = (int)threadIdx.y; o < outputs; o += (int)blockDim.y) {
        const float *row = w + (int64_t)o * channels;
        const float factor = is_constant ? table[outputs + o] : table[o] * row[d];
        sum[0] = fmaf(factor, c < channels ? row[c] : 0, sum[0]);
    }
    sum_tile_rows(sum, tile, [&](int i, float total) {
        const int column = (int)(blockIdx.x * blockDim.x) + i;
        if (column < channels)
            from_float(total, is_constant ? constant[column] : from_x[(int64_t)d * channels + column]);
    });
}

int cuda_linear_bn_fold_gradient(const cuda_backend *self, const linear_bn_layer *l, void *from_g, void *from_x,
                                 void *constant, float *table)
{
    return with_type((uint8_t)self->real, [&](auto t) {
        using T = typename decltype(t)::type;
        tile_shape tile = tile_of(l->channels, 1);
        CHECK(l->channels < MOST_GRID_ROWS, ERROR_KERNEL, "linear_bn_dgrad: more than %d channels", MOST_GRID_ROWS);
        TRY(launch(fold_gradient_kernel<T>, dim3((unsigned)l->outputs), dim3(whole_warps(l->channels)), 0, self->stream,
                   statistics_of(l), l->gsums, l->w, l->outputs, l->channels, (T *)from_g, table));
        return launch(from_x_kernel<T>, dim3(tile.tiles, (unsigned)l->channels + 1), tile_block(tile), 0, self->stream,
                      l->w, table, l->outputs, l->channels, (T *)from_x, (T *)constant);
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    bias_relu_kernel(T *y, int stride, int64_t rows, int columns, const T *bias, bool relu)
{
    const int column = tile_column<V>();
    float added[V];
    if (column >= columns)
        return;
    load(bias + column, added);
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
         row += (int64_t)gridDim.y * blockDim.y) {
        float value[V];
        load(y + row * stride + column, value);
#pragma unroll
        for (int v = 0; v < V; v++) {
            value[v] += added[v];
            if (relu)
                value[v] = rectify(value[v]);
        }
        store(y + row * stride + column, value);
    }
}

int cuda_bias_relu(const cuda_backend *self, void *y, int stride, int64_t rows, int columns, const void *bias,
                   bool relu)
{
    int64_t fits = stride | columns; /* divisible by 4 or 8 if both are */
    return with_vectors((uint8_t)self->real, fits, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(columns, V);
        return launch(bias_relu_kernel<T, V>, tile_grid(self, tile, rows), tile_block(tile), 0, self->stream, (T *)y,
                      stride, rows, columns, (const T *)bias, relu);
    });
}

/* ---- gradients ---- */

/* gsums of an output in each block, of a warp; dgamma and dbeta may be NULL. */
static __global__ void __launch_bounds__(32)
    linear_bn_grad_sums_kernel(const float *dw, const float *dbias, const float *w, bn_statistics s, int outputs,
                               int channels, double *gsums, float *dgamma, float *dbeta)
{
    const int o = (int)blockIdx.x;
    double of_product = 0;
#pragma unroll 4
    for (int c = (int)threadIdx.x; c < channels; c += 32)
        of_product += (double)dw[(int64_t)o * channels + c] * (double)w[(int64_t)o * channels + c];
    of_product = block_sum(of_product);
    if (threadIdx.x != 0)
        return;
    const bn_moments m = moments_of(s, outputs, o);
    const double of_g = (double)dbias[o], of_xhat = (of_product - m.mean * of_g) * m.inverse_std;
    gsums[o] = of_g;
    gsums[outputs + o] = of_xhat;
    if (dbeta)
        dbeta[o] = (float)of_g;
    if (dgamma)
        dgamma[o] = (float)of_xhat;
}

int cuda_linear_bn_grad_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *w = &k->request.in[2];
    bn_statistics s = {};
    s.sums = (const double *)args->in[3];
    s.count = k->request.node.attr.count;
    s.eps = k->request.node.attr.eps;
    return launch(linear_bn_grad_sums_kernel, dim3((unsigned)w->dim[0]), dim3(32), 0, self->stream,
                  (const float *)args->in[0], (const float *)args->in[1], (const float *)args->in[2], s, w->dim[0],
                  (int)(tensor_count(w) / w->dim[0]), (double *)args->out[0], (float *)args->out[2],
                  (float *)args->out[3]);
}

/* An output in each blockIdx.y, a tile of channels in each blockIdx.x: from_g * dw' + from_x * (w x^T x) + constant *
 * the sums of x. */
static __global__ void __launch_bounds__(THREADS)
    linear_bn_wgrad_kernel(const float *of_g, const float *w, bn_statistics s, const double *gsums,
                           const float *moments, int outputs, int channels, float *dw)
{
    __shared__ float tile[THREADS];
    const int c = (int)(blockIdx.x * blockDim.x + threadIdx.x), o = (int)blockIdx.y;
    const float *row = w + (int64_t)o * channels;
    float sum[1] = {0};
#pragma unroll 4
    for (int d = (int)threadIdx.y; d < channels; d += (int)blockDim.y)
        sum[0] = fmaf(row[d], c < channels ? moments[(int64_t)d * channels + c] : 0, sum[0]);
    const bn_gradient gradient = gradient_of(s, moments_of(s, outputs, o), gsums, outputs, o);
    sum_tile_rows(sum, tile, [&](int i, float w_gram) {
        const int column = (int)(blockIdx.x * blockDim.x) + i;
        if (column >= channels)
            return;
        const int64_t at = (int64_t)o * channels + column;
        const double of_x = (double)moments[(int64_t)channels * channels + column];
        dw[at] =
            (float)(gradient.from_g * (double)of_g[at] + gradient.from_x * (double)w_gram + gradient.constant * of_x);
    });
}

int cuda_linear_bn_wgrad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int outputs = k->request.in[1].dim[0], channels = k->request.in[5].dim[3];
    tile_shape tile = tile_of(channels, 1);
    bn_statistics s = {};
    CHECK(outputs <= MOST_GRID_ROWS, ERROR_KERNEL, "linear_bn_wgrad: more than %d outputs", MOST_GRID_ROWS);
    s.sums = (const double *)args->in[2];
    s.gamma = (const float *)args->in[3];
    s.count = k->request.node.attr.count;
    s.eps = k->request.node.attr.eps;
    return launch(linear_bn_wgrad_kernel, dim3(tile.tiles, (unsigned)outputs), tile_block(tile), 0, self->stream,
                  (const float *)args->in[0], (const float *)args->in[1], s, (const double *)args->in[4],
                  (const float *)args->in[5], outputs, channels, (float *)args->out[0]);
}

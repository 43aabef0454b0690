/* Excitation: a feature map's channels scaled by the sigmoid of z, a shortcut added, ReLU; and its gradient. One image
 * per blockIdx.y, one tile of channels per blockIdx.x; a block adds dz over its whole image. */
#include "reduce.cuh"

__device__ static inline float sigmoid(float z)
{
    return 1 / (1 + expf(-z));
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    excite_kernel(const T *r, const T *z, const T *shortcut, T *y, int area, int channels)
{
    const int column = tile_column<V>();
    if (column >= channels)
        return;
    float gate[V];
    load(z + (int64_t)blockIdx.y * channels + column, gate);
#pragma unroll
    for (int v = 0; v < V; v++)
        gate[v] = sigmoid(gate[v]);
    for (int row = (int)threadIdx.y; row < area; row += (int)blockDim.y) {
        const int64_t at = ((int64_t)blockIdx.y * area + row) * channels + column;
        float value[V], added[V];
        load(r + at, value);
        load(shortcut + at, added);
#pragma unroll
        for (int v = 0; v < V; v++)
            value[v] = rectify(fmaf(value[v], gate[v], added[v]));
        store(y + at, value);
    }
}

template <typename T> struct excite_gradients {
    const T *r, *z, *y, *dy;
    T *dr, *dz, *dshortcut; /* each may be NULL */
};

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 4) excite_grad_kernel(excite_gradients<T> m, int area, int channels)
{
    __shared__ float sum[THREADS * V];
    const int column = tile_column<V>();
    const bool active = column < channels;
    float gate[V], total[V] = {};
    if (active)
        load(m.z + (int64_t)blockIdx.y * channels + column, gate);
    for (int row = (int)threadIdx.y; active && row < area; row += (int)blockDim.y) {
        const int64_t at = ((int64_t)blockIdx.y * area + row) * channels + column;
        float g[V], other[V];
        load(m.dy + at, g);
        load(m.y + at, other);
#pragma unroll
        for (int v = 0; v < V; v++)
            g[v] = other[v] > 0 ? g[v] : 0;
        if (m.dshortcut)
            store(m.dshortcut + at, g);
        load(m.r + at, other);
#pragma unroll
        for (int v = 0; v < V; v++) {
            total[v] = fmaf(g[v], other[v], total[v]);
            g[v] *= sigmoid(gate[v]);
        }
        if (m.dr)
            store(m.dr + at, g);
    }
    sum_tile_rows(total, sum, [&](int i, float of_column) {
        if (!m.dz || tile_first<V>() + i >= channels)
            return;
        const int64_t at = (int64_t)blockIdx.y * channels + tile_first<V>() + i;
        const float s = sigmoid(to_float(m.z[at]));
        from_float(of_column * s * (1 - s), m.dz[at]);
    });
}

int cuda_excite(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    return with_vectors(map->dtype, map->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(map->dim[3], V);
        return launch(excite_kernel<T, V>, dim3(tile.tiles, (unsigned)map->dim[0]), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[1], (const T *)args->in[2], (T *)args->out[0],
                      map->dim[1] * map->dim[2], map->dim[3]);
    });
}

int cuda_excite_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    return with_vectors(map->dtype, map->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(map->dim[3], V);
        excite_gradients<T> m = {(const T *)args->in[0], (const T *)args->in[1], (const T *)args->in[2],
                                 (const T *)args->in[3], (T *)args->out[0],      (T *)args->out[1],
                                 (T *)args->out[2]};
        return launch(excite_grad_kernel<T, V>, dim3(tile.tiles, (unsigned)map->dim[0]), tile_block(tile), 0,
                      self->stream, m, map->dim[1] * map->dim[2], map->dim[3]);
    });
}

/* Pools and their gradients. In the maximum's gradient every element of the map gathers from the windows that chose it,
 * as the forward noted in a byte a window, or else a first kernel finds out: fixed order, no atomics. */
#include "reduce.cuh"

/* ---- global average ---- */

/* One picture a blockIdx.y, one tile of channels a blockIdx.x. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) average_kernel(const T *x, T *y, int area, int channels)
{
    __shared__ float sum[THREADS * V];
    const int column = tile_column<V>();
    const T *picture = x + (int64_t)blockIdx.y * area * channels;
    float total[V] = {};
    for (int at = (int)threadIdx.y; at < area && column < channels; at += (int)blockDim.y) {
        float value[V];
        load(picture + (int64_t)at * channels + column, value);
#pragma unroll
        for (int v = 0; v < V; v++)
            total[v] += value[v];
    }
    sum_tile_rows(total, sum, [&](int i, float of_column) {
        if (tile_first<V>() + i < channels)
            from_float(of_column / (float)area, y[(int64_t)blockIdx.y * channels + tile_first<V>() + i]);
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS) average_grad_kernel(const T *dy, T *dx, int area, int channels)
{
    const int column = tile_column<V>();
    if (column >= channels)
        return;
    float value[V];
    load(dy + (int64_t)blockIdx.y * channels + column, value);
#pragma unroll
    for (int v = 0; v < V; v++)
        value[v] /= (float)area;
    for (int at = (int)threadIdx.y; at < area; at += (int)blockDim.y)
        store(dx + ((int64_t)blockIdx.y * area + at) * channels + column, value);
}

template <typename F> static int with_picture_tiles(const tensor_desc *map, F function)
{
    return with_vectors(map->dtype, map->dim[3], [&](auto t, auto width) {
        tile_shape tile = tile_of(map->dim[3], decltype(width)::value);
        return function(t, width, dim3(tile.tiles, (unsigned)map->dim[0]), tile_block(tile));
    });
}

int cuda_global_average_pool(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    return with_picture_tiles(map, [&](auto t, auto width, dim3 grid, dim3 block) {
        using T = typename decltype(t)::type;
        return launch(average_kernel<T, decltype(width)::value>, grid, block, 0, self->stream, (const T *)args->in[0],
                      (T *)args->out[0], map->dim[1] * map->dim[2], map->dim[3]);
    });
}

int cuda_global_average_pool_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.out[0];
    return with_picture_tiles(map, [&](auto t, auto width, dim3 grid, dim3 block) {
        using T = typename decltype(t)::type;
        return launch(average_grad_kernel<T, decltype(width)::value>, grid, block, 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], map->dim[1] * map->dim[2], map->dim[3]);
    });
}

/* ---- maximum ---- */

struct pool_shape {
    int height, width, channels; /* of the map */
    int pooled_height, pooled_width;
    int size, stride, pad; /* of the windows */
};

/* The element of a window is numbered kh * size + kw, in a byte. */
enum { MAX_WINDOW = 15 };

static pool_shape shape_of(const kernel *k, const tensor_desc *map, const tensor_desc *pooled)
{
    const op_attr *attr = &k->request.node.attr;
    return pool_shape{map->dim[1],    map->dim[2],  map->dim[3],  pooled->dim[1],
                      pooled->dim[2], attr->kernel, attr->stride, attr->pad};
}

/* One line of the pooled map a block. Writes the maxima to y and which elements they are to `chosen`; either may be
 * NULL. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) max_pool_kernel(const T *x, pool_shape s, T *y, uint8_t *chosen)
{
    const int groups = s.channels / V, line = (int)blockIdx.x;
    const int top = line % s.pooled_height * s.stride - s.pad;
    const T *picture = x + (int64_t)(line / s.pooled_height) * s.height * s.width * s.channels;
    for (int i = (int)threadIdx.x; i < s.pooled_width * groups; i += THREADS) {
        const int left = i / groups * s.stride - s.pad, column = i % groups * V;
        float largest[V] = {};
        int which[V] = {};
        bool first = true;
        for (int kh = 0; kh < s.size; kh++)
            for (int kw = 0; kw < s.size; kw++) {
                const int row = top + kh, at = left + kw;
                if (row < 0 || row >= s.height || at < 0 || at >= s.width)
                    continue;
                float value[V];
                load(picture + ((int64_t)row * s.width + at) * s.channels + column, value);
#pragma unroll
                for (int v = 0; v < V; v++)
                    if (first || value[v] > largest[v] || value[v] != value[v]) {
                        largest[v] = value[v];
                        which[v] = kh * s.size + kw;
                    }
                first = false;
            }
        const int64_t at = (int64_t)line * s.pooled_width * s.channels + (int64_t)i * V;
        if (y)
            store(y + at, largest);
        if (chosen) {
            pack<uint8_t, V> bytes;
#pragma unroll
            for (int v = 0; v < V; v++)
                bytes.element[v] = (uint8_t)which[v];
            *reinterpret_cast<pack<uint8_t, V> *>(chosen + at) = bytes;
        }
    }
}

/* One line of the map a block: each element adds the dy of the windows that chose it, in the windows' order. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) max_pool_grad_kernel(const T *dy, const uint8_t *chosen, pool_shape s, T *dx)
{
    const int groups = s.channels / V, line = (int)blockIdx.x, row = line % s.height + s.pad;
    const int64_t picture = (int64_t)(line / s.height) * s.pooled_height * s.pooled_width * s.channels;
    const int first_row = row < s.size ? 0 : (row - s.size) / s.stride + 1;
    for (int i = (int)threadIdx.x; i < s.width * groups; i += THREADS) {
        const int at = i / groups + s.pad, column = i % groups * V;
        const int first_at = at < s.size ? 0 : (at - s.size) / s.stride + 1;
        float sum[V] = {};
        for (int oy = first_row; oy < s.pooled_height && oy * s.stride <= row; oy++)
            for (int ox = first_at; ox < s.pooled_width && ox * s.stride <= at; ox++) {
                const int64_t from = picture + ((int64_t)oy * s.pooled_width + ox) * s.channels + column;
                const int here = (row - oy * s.stride) * s.size + (at - ox * s.stride);
                const pack<uint8_t, V> bytes = *reinterpret_cast<const pack<uint8_t, V> *>(chosen + from);
                float value[V];
                load(dy + from, value);
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[v] += bytes.element[v] == here ? value[v] : 0;
            }
        store(dx + ((int64_t)line * s.width * s.channels + (int64_t)i * V), sum);
    }
}

int cuda_pool_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    int size = k->request.node.attr.kernel;
    CHECK(size <= MAX_WINDOW, ERROR_KERNEL, "a max-pool of %dx%d: windows go up to %dx%d", size, size, MAX_WINDOW,
          MAX_WINDOW);
    if (k->request.node.op == OP_MAX_POOL_GRAD && tensor_count(&k->request.in[2]) == 0)
        k->offset[0] = cuda_workspace_take(workspace, (size_t)tensor_count(&k->request.in[1]));
    return 0;
}

static int walk_windows(const cuda_backend *self, const kernel *k, const kernel_args *args, const tensor_desc *pooled,
                        void *y, uint8_t *chosen)
{
    const tensor_desc *map = &k->request.in[0];
    return with_vectors(pooled->dtype, pooled->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        return launch(max_pool_kernel<T, decltype(width)::value>, dim3((unsigned)(pooled->dim[0] * pooled->dim[1])),
                      dim3(THREADS), 0, self->stream, (const T *)args->in[0], shape_of(k, map, pooled), (T *)y, chosen);
    });
}

int cuda_max_pool(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return walk_windows(self, k, args, &k->request.out[0], args->out[0], (uint8_t *)args->out[1]);
}

int cuda_max_pool_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.out[0], *pooled = &k->request.in[1];
    const uint8_t *chosen = (const uint8_t *)args->in[2];
    if (!chosen) {
        uint8_t *found = (uint8_t *)cuda_workspace_at(args, k->offset[0]);
        TRY(walk_windows(self, k, args, pooled, NULL, found));
        chosen = found;
    }
    return with_vectors(map->dtype, map->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        return launch(max_pool_grad_kernel<T, decltype(width)::value>, dim3((unsigned)(map->dim[0] * map->dim[1])),
                      dim3(THREADS), 0, self->stream, (const T *)args->in[1], chosen, shape_of(k, map, pooled),
                      (T *)args->out[0]);
    });
}

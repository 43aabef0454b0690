/* Pools and their gradients. In the maximum's gradient every element of the feature map gathers from the windows that
 * chose it, in a fixed order, without atomics. The forward noted the choices, a byte per window, or a first kernel
 * finds them.
 */
#include "reduce.cuh"

/* ---- global average ---- */

/* One image per blockIdx.y, one tile of channels per blockIdx.x. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) average_kernel(const T *x, T *y, int area, int channels)
{
    __shared__ float sum[THREADS * V];
    const int column = tile_column<V>();
    const T *image = x + (int64_t)blockIdx.y * area * channels;
    float total[V] = {};
    for (int at = (int)threadIdx.y; at < area && column < channels; at += (int)blockDim.y) {
        float value[V];
        load(image + (int64_t)at * channels + column, value);
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

template <typename F> static int with_image_tiles(const tensor_desc *map, F function)
{
    return with_vectors(map->dtype, map->dim[3], [&](auto t, auto width) {
        tile_shape tile = tile_of(map->dim[3], decltype(width)::value);
        return function(t, width, dim3(tile.tiles, (unsigned)map->dim[0]), tile_block(tile));
    });
}

int cuda_global_average_pool(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    return with_image_tiles(map, [&](auto t, auto width, dim3 grid, dim3 block) {
        using T = typename decltype(t)::type;
        return launch(average_kernel<T, decltype(width)::value>, grid, block, 0, self->stream, (const T *)args->in[0],
                      (T *)args->out[0], map->dim[1] * map->dim[2], map->dim[3]);
    });
}

int cuda_global_average_pool_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.out[0];
    return with_image_tiles(map, [&](auto t, auto width, dim3 grid, dim3 block) {
        using T = typename decltype(t)::type;
        return launch(average_grad_kernel<T, decltype(width)::value>, grid, block, 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], map->dim[1] * map->dim[2], map->dim[3]);
    });
}

/* ---- maximum ---- */

struct pool_shape {
    int height, width, channels; /* of the feature map */
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

/* Windows that a kernel knows when it is compiled: those of the networks for large images, or any. */
enum window_kind { WINDOW_3_2_1, ANY_WINDOW };

static bool is_known(const pool_shape &s)
{
    return s.size == 3 && s.stride == 2 && s.pad == 1;
}

template <window_kind KIND> __device__ static inline pool_shape known_shape(pool_shape s)
{
    if (KIND == WINDOW_3_2_1) {
        s.size = 3;
        s.stride = 2;
        s.pad = 1;
    }
    return s;
}

/* A block walks one line of a feature map: its threads lie along the channels, then along the columns. */
static dim3 line_grid(const tensor_desc *map, tile_shape tile)
{
    return dim3((unsigned)(map->dim[0] * map->dim[1]), tile.tiles);
}

template <int V> __device__ static inline int line_channel()
{
    return (int)(blockIdx.y * blockDim.x + threadIdx.x) * V;
}

/* The largest elements so far of a window, and which ones they are. */
template <int V> struct maxima {
    float largest[V];
    int which[V];

    /* `first` is the first element of the window that lies on the feature map. */
    __device__ explicit maxima(int first)
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            largest[v] = -INFINITY;
            which[v] = first;
        }
    }

    template <typename T> __device__ void take(const pack<T, V> &elements, int number, bool inside)
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float value = to_float(elements.element[v]);
            if (inside && (value > largest[v] || value != value)) {
                largest[v] = value;
                which[v] = number;
            }
        }
    }

    /* Either may be NULL. */
    template <typename T> __device__ void write(T *y, uint8_t *chosen) const
    {
        if (y)
            store(y, largest);
        if (chosen) {
            pack<uint8_t, V> bytes;
#pragma unroll
            for (int v = 0; v < V; v++)
                bytes.element[v] = (uint8_t)which[v];
            *reinterpret_cast<pack<uint8_t, V> *>(chosen) = bytes;
        }
    }
};

__device__ static inline bool is_on(int position, int size)
{
    return position >= 0 && position < size;
}

__device__ static inline int nearest_on(int position, int size)
{
    return position < 0 ? 0 : position < size ? position : size - 1;
}

/* Takes the elements of the window whose corner is (top, left) of a channel, `image`. A known window is loaded before
 * any of it is compared; what lies outside is read from the edge and not taken. */
template <window_kind KIND, typename T, int V>
__device__ static inline void take_window(const T *image, const pool_shape &s, int top, int left, maxima<V> &m)
{
    if constexpr (KIND == WINDOW_3_2_1) {
        pack<T, V> elements[9];
#pragma unroll
        for (int i = 0; i < 9; i++)
            elements[i] = load_raw<V>(
                image + (int64_t)(nearest_on(top + i / 3, s.height) * s.width + nearest_on(left + i % 3, s.width)) *
                            s.channels);
#pragma unroll
        for (int i = 0; i < 9; i++)
            m.take(elements[i], i, is_on(top + i / 3, s.height) && is_on(left + i % 3, s.width));
    } else
        for (int kh = 0; kh < s.size; kh++)
            for (int kw = 0; kw < s.size; kw++)
                if (is_on(top + kh, s.height) && is_on(left + kw, s.width))
                    m.take(load_raw<V>(image + ((int64_t)(top + kh) * s.width + left + kw) * s.channels),
                           kh * s.size + kw, true);
}

/* One block per line of the pooled feature map. Writes maxima to y, their elements to `chosen`; either may be NULL. */
template <typename T, int V, window_kind KIND>
__global__ void __launch_bounds__(THREADS) max_pool_kernel(const T *x, pool_shape shape, T *y, uint8_t *chosen)
{
    const pool_shape s = known_shape<KIND>(shape);
    const int line = (int)blockIdx.x, channel = line_channel<V>();
    if (channel >= s.channels)
        return;
    const int top = line % s.pooled_height * s.stride - s.pad;
    const T *image = x + (int64_t)(line / s.pooled_height) * s.height * s.width * s.channels + channel;
    for (int i = (int)threadIdx.y; i < s.pooled_width; i += (int)blockDim.y) {
        const int left = i * s.stride - s.pad;
        maxima<V> m((top < 0 ? -top * s.size : 0) + (left < 0 ? -left : 0));
        take_window<KIND>(image, s, top, left, m);
        const int64_t at = ((int64_t)line * s.pooled_width + i) * s.channels + channel;
        m.write(y ? y + at : NULL, chosen ? chosen + at : NULL);
    }
}

/* The windows along one axis that an element lies in, `at` from the edge of the padding: first to last. */
struct windows_over {
    int first, last;
};

__device__ static inline windows_over windows_of(int at, int size, int stride, int pooled)
{
    const int last = at / stride;
    return windows_over{at < size ? 0 : (at - size) / stride + 1, last < pooled ? last : pooled - 1};
}

/* What an element gets of one window. */
template <typename T, int V> struct window_gradient {
    pack<T, V> dy;
    pack<uint8_t, V> chosen;

    __device__ void read(const T *dy_of_channel, const uint8_t *chosen_of_channel, const pool_shape &s, int oy, int ox)
    {
        const int64_t at = (int64_t)(oy * s.pooled_width + ox) * s.channels;
        dy = load_raw<V>(dy_of_channel + at);
        chosen = load_raw<V>(chosen_of_channel + at);
    }

    /* `here` is the element's number in the window. */
    __device__ void add(int here, float (&sum)[V]) const
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            sum[v] += chosen.element[v] == here ? to_float(dy.element[v]) : 0;
    }
};

/* Adds what the element at (y, x), from the edges of the padding, gets of its windows. Known ones are at most 2 x 2,
 * and loaded before any is added; where there are fewer, one is read twice and not added. */
template <window_kind KIND, typename T, int V>
__device__ static inline void add_windows(const T *dy, const uint8_t *chosen, const pool_shape &s, int y, int x,
                                          float (&sum)[V])
{
    const windows_over rows = windows_of(y, s.size, s.stride, s.pooled_height),
                       columns = windows_of(x, s.size, s.stride, s.pooled_width);
    if constexpr (KIND == WINDOW_3_2_1) {
        window_gradient<T, V> of[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            of[i].read(dy, chosen, s, i / 2 ? rows.last : rows.first, i % 2 ? columns.last : columns.first);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int oy = rows.first + i / 2, ox = columns.first + i % 2;
            if (oy <= rows.last && ox <= columns.last)
                of[i].add((y - oy * s.stride) * s.size + x - ox * s.stride, sum);
        }
    } else
        for (int oy = rows.first; oy <= rows.last; oy++)
            for (int ox = columns.first; ox <= columns.last; ox++) {
                window_gradient<T, V> of;
                of.read(dy, chosen, s, oy, ox);
                of.add((y - oy * s.stride) * s.size + x - ox * s.stride, sum);
            }
}

/* One block per line of the feature map: each element adds the dy of the windows that chose it, in their order. */
template <typename T, int V, window_kind KIND>
__global__ void __launch_bounds__(THREADS)
    max_pool_grad_kernel(const T *dy, const uint8_t *chosen, pool_shape shape, T *dx)
{
    const pool_shape s = known_shape<KIND>(shape);
    const int line = (int)blockIdx.x, row = line % s.height, channel = line_channel<V>();
    if (channel >= s.channels)
        return;
    const int64_t image = (int64_t)(line / s.height) * s.pooled_height * s.pooled_width * s.channels + channel;
    for (int x = (int)threadIdx.y; x < s.width; x += (int)blockDim.y) {
        float sum[V] = {};
        add_windows<KIND>(dy + image, chosen + image, s, row + s.pad, x + s.pad, sum);
        store(dx + ((int64_t)line * s.width + x) * s.channels + channel, sum);
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
        constexpr int V = decltype(width)::value;
        const pool_shape s = shape_of(k, map, pooled);
        const tile_shape tile = tile_of(s.channels, V);
        return launch(is_known(s) ? max_pool_kernel<T, V, WINDOW_3_2_1> : max_pool_kernel<T, V, ANY_WINDOW>,
                      line_grid(pooled, tile), tile_block(tile), 0, self->stream, (const T *)args->in[0], s, (T *)y,
                      chosen);
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
        constexpr int V = decltype(width)::value;
        const pool_shape s = shape_of(k, map, pooled);
        const tile_shape tile = tile_of(s.channels, V);
        return launch(is_known(s) ? max_pool_grad_kernel<T, V, WINDOW_3_2_1> : max_pool_grad_kernel<T, V, ANY_WINDOW>,
                      line_grid(map, tile), tile_block(tile), 0, self->stream, (const T *)args->in[1], chosen, s,
                      (T *)args->out[0]);
    });
}

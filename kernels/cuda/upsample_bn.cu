/* Batch normalisation of an upsampled map, computed from the small map z; the upsampled map itself is never made.
 *
 * With U the upsample, whose rows sum to 1: normalising U z is upsampling the normalised z, so the forward reads z and
 * writes the large result once. The backward reads the large gradient once, masks it (the large value is computed again
 * from z, by the same functions as in the forward, so that it has the same sign) and gathers Uᵀg. What stays small is
 * in upsample_bn_small.cu. Everything is gathered in a fixed order: no atomics. */
#include "bilinear.cuh"
#include "bn_statistics.cuh"
#include "upsample_strips.cuh"

enum {
    MOST_BETWEEN = 3, /* large rows between two small rows, at most */
    MOST_READERS = 4  /* large columns that read one small column: a fifth would do so with weight 0 */
};

/* ---- the normalised large map ---- */

__device__ static inline float between(float a, float b, float weight)
{
    return fmaf(weight, b - a, a);
}

/* A column of the large map on its way down: normalised values at its place in the two small rows around it. */
template <typename T, int V> struct large_column {
    const T *left, *right; /* in row 0 of the small picture */
    int64_t row_elements;
    float weight;
    float upper[V] = {}, lower[V] = {};

    __device__ large_column(const T *z, const small_map &m, int picture, int x, int column)
    {
        const bilinear_source h = source_of(x, m.width);
        row_elements = (int64_t)m.width * m.channels;
        left = z + picture * m.height * row_elements + (int64_t)h.first * m.channels + column;
        right = left + (h.second - h.first) * m.channels;
        weight = h.weight;
    }

    /* `lower` becomes that of a small row; with the old one as `upper`. `table` is that of fill_affine. */
    __device__ void advance(int row, const float *table)
    {
        float a[V], b[V], scale[V], shift[V];
        load(left + row * row_elements, a);
        load(right + row * row_elements, b);
        take_table(table, 0, scale);
        take_table(table, 1, shift);
#pragma unroll
        for (int v = 0; v < V; v++) {
            upper[v] = lower[v];
            lower[v] = affine(between(a[v], b[v], weight), scale[v], shift[v]);
        }
    }

    __device__ float value(int v, float below) const
    {
        return between(upper[v], lower[v], below);
    }
};

/* The large rows between small row `row` and the next: they have `row` as the upper of their neighbours. */
struct rows_between {
    int first, end, offset, step;
    float inverse;

    /* What the lower neighbour counts for in large row first + i. */
    __device__ float weight(int i) const
    {
        return (float)(offset + i * step) * inverse;
    }
};

__device__ static inline int first_after(int row, int size)
{
    return row <= 0 ? 0 : (row * (2 * size - 1) + size - 2) / (size - 1);
}

/* `first` is first_after(row, size), or the `end` of the row before. */
__device__ static inline rows_between rows_after(int row, int first, int size)
{
    const int steps = 2 * size - 1;
    int end = first + 1;
    while (end < 2 * size && end * (size - 1) < (row + 1) * steps)
        end++;
    return rows_between{first, end, first * (size - 1) - row * steps, size - 1, 1.0f / (float)steps};
}

__device__ static inline int row_or_last(int row, const small_map &m)
{
    return row < m.height ? row : m.height - 1;
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    normalize_kernel(const T *z, T *u, int u_stride, bn_statistics s, small_map m, int segments, int items, bool relu)
{
    __shared__ float table[2 * LANES * V];
    fill_affine<V>(s, m.channels, table);
    __syncthreads();
    const int column = tile_column<V>();
    for (int item = (int)blockIdx.y; item < items; item += (int)gridDim.y) {
        const strip place = strip_at(m, segments, item);
        const int x = place.segment * (int)blockDim.y + (int)threadIdx.y;
        if (column >= m.channels || x >= 2 * m.width)
            continue;
        large_column<T, V> large(z, m, place.picture, x, column);
        T *to = u + ((int64_t)place.picture * 4 * m.height * m.width + x) * u_stride + column;
        int next = first_after(place.first, m.height);
        large.advance(place.first, table);
        for (int row = place.first; row < place.end; row++) {
            const rows_between rows = rows_after(row, next, m.height);
            large.advance(row_or_last(row + 1, m), table);
            for (int i = 0; i < rows.end - rows.first; i++) {
                float value[V];
#pragma unroll
                for (int v = 0; v < V; v++) {
                    value[v] = large.value(v, rows.weight(i));
                    value[v] = relu ? rectify(value[v]) : value[v];
                }
                store(to + (int64_t)(rows.first + i) * 2 * m.width * u_stride, value);
            }
            next = rows.end;
        }
    }
}

static int normalize(const cuda_backend *self, const kernel *k, const kernel_args *args, const bn_statistics &s)
{
    const small_map m = small_map_of(k);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        const tile_shape tile = tile_of(m.channels, V);
        const strip_grid g = strips_over(m, tile, divide_up(2 * m.width, tile.rows));
        return launch(normalize_kernel<T, V>, grid_of(g, MOST_GRID_ROWS), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], (int)tensor_row_stride(&k->request.out[0]), s, m,
                      g.segments, g.items, k->request.node.attr.relu);
    });
}

int cuda_upsample_bn(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return normalize(self, k, args, batch_statistics(k, args));
}

int cuda_upsample_bn_inference(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return normalize(self, k, args, running_statistics(k, args));
}

/* ---- the gradient of the large map, gathered ---- */

/* The small columns [first, end) of a segment, and the large ones from `large` on that they are read by, which a block
 * has enough threads for. */
struct gather_columns {
    int first, end, large, large_end;
};

/* Small columns of a segment where `rows` threads lie along the large ones: all, or as many as never have more readers.
 */
static int gathered_columns(const small_map &m, unsigned rows)
{
    return 2 * m.width <= (int)rows ? m.width : ((int)rows - MOST_BETWEEN) / 2;
}

static tile_shape gather_tile(const small_map &m, int width)
{
    unsigned rows = 8;
    while (rows < 32 && (int)rows < 2 * m.width)
        rows *= 2;
    const unsigned lanes = THREADS / rows;
    return tile_shape{lanes, rows, (unsigned)divide_up(divide_up(m.channels, width), lanes)};
}

__device__ static inline gather_columns columns_of(const small_map &m, int columns, int segment)
{
    const int first = segment * columns, end = first + columns < m.width ? first + columns : m.width;
    return gather_columns{first, end, readers_of(first, m.width).first, readers_of(end - 1, m.width).last + 1};
}

/* The gradient's large rows between two small rows, read before they are needed. */
template <typename T, int V> struct large_rows {
    pack<T, V> row[MOST_BETWEEN] = {};

    __device__ void read(const rows_between &rows, const T *dy, int64_t dy_row)
    {
#pragma unroll
        for (int i = 0; i < MOST_BETWEEN; i++)
            if (rows.first + i < rows.end)
                row[i] = *reinterpret_cast<const pack<T, V> *>(dy + (rows.first + i) * dy_row);
    }

    /* Masks them and adds them to both small rows. */
    __device__ void add(const rows_between &rows, const large_column<T, V> &large, bool relu, float (&upper)[V],
                        float (&lower)[V]) const
    {
#pragma unroll
        for (int i = 0; i < MOST_BETWEEN; i++) {
            const float weight = rows.weight(i);
#pragma unroll
            for (int v = 0; v < V; v++) {
                const bool seen = rows.first + i < rows.end && (!relu || large.value(v, weight) > 0);
                const float g = seen ? to_float(row[i].element[v]) : 0;
                upper[v] = fmaf(1 - weight, g, upper[v]);
                lower[v] = fmaf(weight, g, lower[v]);
            }
        }
    }
};

/* A column of the small map: which of a block's large columns read it, and how much of it. */
struct small_column {
    int first, count;
    float weight[MOST_READERS];

    __device__ small_column(const small_map &m, const gather_columns &at, int x)
    {
        const bilinear_readers readers = readers_of(x, m.width);
        first = readers.first - at.large;
        count = readers.last - readers.first + 1;
#pragma unroll
        for (int i = 0; i < MOST_READERS; i++)
            weight[i] = weight_for(readers.first + i, x, m.width);
    }

    /* line[large column][channel of the tile] */
    template <int V> __device__ void gather(const float *line, float (&sum)[V]) const
    {
#pragma unroll
        for (int i = 0; i < MOST_READERS; i++)
            if (i < count) {
                float value[V];
                load(line + ((first + i) * (int)blockDim.x + (int)threadIdx.x) * V, value);
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[v] = fmaf(weight[i], value[v], sum[v]);
            }
    }
};

/* Writes dg = Uᵀg at a place and adds it and dg * (z - mean) to the run. */
template <typename T, int V>
__device__ static inline void finish_place(const small_column &small, const float *line, const T *z, T *dg,
                                           const float *table, float (&run)[2][V])
{
    float sum[V] = {}, value[V], mean[V];
    load(z, value);
    take_table(table, 2, mean);
    small.gather(line, sum);
    store(dg, sum);
#pragma unroll
    for (int v = 0; v < V; v++) {
        run[0][v] += sum[v];
        run[1][v] = fmaf(sum[v], value[v] - mean[v], run[1][v]);
    }
}

template <typename T> struct gather_arguments {
    const T *z, *dy;
    T *dg;
    int dy_stride, columns, segments, items;
    bool relu;
};

/* Uᵀg of a strip. Large rows are added to the two small rows around them in registers; a finished row goes to `line`,
 * where it is gathered along the columns. Holds barriers. */
template <typename T, int V>
__device__ static inline void gather_strip(const gather_arguments<T> &a, const small_map &m, const strip &place,
                                           const float *table, float *line, float (&run)[2][V])
{
    const gather_columns at = columns_of(m, a.columns, place.segment);
    const int column = tile_column<V>(), y = (int)threadIdx.y;
    const bool reads = column < m.channels && at.large + y < at.large_end;
    const bool writes = column < m.channels && at.first + y < at.end;
    const int x = writes ? at.first + y : at.first, large_x = reads ? at.large + y : at.large;
    const int64_t small_row = (int64_t)m.width * m.channels, dy_row = (int64_t)2 * m.width * a.dy_stride;
    const int64_t small_at = place.picture * m.height * small_row + (int64_t)x * m.channels + column;
    const T *dy = a.dy + (int64_t)place.picture * 2 * m.height * dy_row + (int64_t)large_x * a.dy_stride + column;
    const small_column small(m, at, x);
    large_column<T, V> large(a.z, m, place.picture, large_x, column);
    large_rows<T, V> gradient;
    float upper[V] = {}, lower[V] = {};
    const int begin = place.first > 0 ? place.first - 1 : 0; /* `first` also gets from the large rows above it */
    rows_between rows = rows_after(begin, first_after(begin, m.height), m.height);
    if (reads) {
        large.advance(begin, table);
        gradient.read(rows, dy, dy_row);
    }
    for (int row = begin; row < place.end; row++) {
        const rows_between next = rows_after(row + 1, rows.end, m.height);
        if (reads) {
            large.advance(row_or_last(row + 1, m), table);
            gradient.add(rows, large, a.relu, upper, lower);
            if (row + 1 < place.end)
                gradient.read(next, dy, dy_row);
        }
        if (row >= place.first) {
            store(line + tile_thread() * V, upper);
            __syncthreads();
            if (writes)
                finish_place(small, line, a.z + small_at + row * small_row, a.dg + small_at + row * small_row, table,
                             run);
            __syncthreads();
        }
#pragma unroll
        for (int v = 0; v < V; v++) {
            upper[v] = lower[v];
            lower[v] = 0;
        }
        rows = next;
    }
}

/* Uᵀ of masked dy, and [sum of it, sum of it * (z - mean)] by channel. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 2)
    gather_kernel(gather_arguments<T> a, bn_statistics s, small_map m, double *partial)
{
    __shared__ float table[3 * LANES * V];
    alignas(16) __shared__ float line[THREADS * V];
    __shared__ double sums[2][THREADS * V];
    fill_affine_and_mean<V>(s, m.channels, table);
    clear_sums<V>(sums);
    __syncthreads();
    for (int item = (int)blockIdx.y; item < a.items; item += (int)gridDim.y) {
        float run[2][V] = {};
        gather_strip(a, m, strip_at(m, a.segments, item), table, line, run);
        add_strip(run, sums);
    }
    finish_sums<V>(sums, m, partial);
}

int cuda_upsample_bn_grad_sums_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    const small_map m = small_map_of(k);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto, auto width) {
        const tile_shape tile = gather_tile(m, decltype(width)::value);
        k->offset[0] = cuda_workspace_take(workspace, strip_sums_workspace(tile, m.channels));
        return 0;
    });
}

int cuda_upsample_bn_grad_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const small_map m = small_map_of(k);
    const bn_statistics s = batch_statistics(k, args);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        const tile_shape tile = gather_tile(m, V);
        const int columns = gathered_columns(m, tile.rows);
        const strip_grid g = strips_over(m, tile, divide_up(m.width, columns));
        double *partial = (double *)cuda_workspace_at(args, k->offset[0]);
        const gather_arguments<T> a = {(const T *)args->in[0],
                                       (const T *)args->in[4],
                                       (T *)args->out[1],
                                       (int)tensor_row_stride(&k->request.in[4]),
                                       columns,
                                       g.segments,
                                       g.items,
                                       k->request.node.attr.relu};
        TRY(launch(gather_kernel<T, V>, grid_of(g, most_sum_blocks(tile)), tile_block(tile), 0, self->stream, a, s, m,
                   partial));
        return combine(self, m, g, partial, totals_of(s, m.channels, args), (double *)args->out[0]);
    });
}

/* Batch normalisation of an upsampled feature map, computed from the small one, z; the large one is never made.
 *
 * With U the upsample, whose rows sum to 1: normalising U z is upsampling the normalised z, so the forward reads z and
 * writes the large result once. The backward reads the large gradient once, masks it and gathers Uᵀg. For the mask the
 * large value is computed again from z, by the forward's functions, so that it has the same sign. What stays small is
 * in upsample_bn_small.cu. Everything is gathered in a fixed order: no atomics. */
#include "bilinear.cuh"
#include "bn_statistics.cuh"
#include "upsample_strips.cuh"

enum {
    MOST_BETWEEN = 3, /* large rows between two small rows, at most */
    MOST_READERS = 4  /* large columns that read one small column: a fifth would do so with weight 0 */
};

/* ---- the normalised large feature map ---- */

__device__ static inline float between(float a, float b, float weight)
{
    return fmaf(weight, b - a, a);
}

/* A column of the large feature map on its way down: normalised values of the two small rows around it. */
template <typename T, int V> struct large_column {
    const T *left, *right; /* in row 0 of the small image */
    int64_t row_elements;
    float weight;
    pack<T, V> next_left, next_right;
    float upper[V] = {}, lower[V] = {};

    __device__ large_column(const T *z, const small_map &m, int image, int x, int column)
    {
        const bilinear_source h = source_of(x, m.width);
        row_elements = (int64_t)m.width * m.channels;
        left = z + image * m.height * row_elements + (int64_t)h.first * m.channels + column;
        right = left + (h.second - h.first) * m.channels;
        weight = h.weight;
    }

    /* Starts to load a small row; one below the feature map is its last again. */
    __device__ void read(int row, const small_map &m)
    {
        const int64_t at = (row < m.height ? row : m.height - 1) * row_elements;
        next_left = load_raw<V>(left + at);
        next_right = load_raw<V>(right + at);
    }

    /* `lower` becomes that of the row that was read; with the old one as `upper`. `table` is that of fill_affine. */
    __device__ void advance(const float *table)
    {
        float a[V], b[V], scale[V], shift[V];
        to_floats(next_left, a);
        to_floats(next_right, b);
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

/* The large rows between a small row and the next, which have it as the upper of their neighbours: how many, and what
 * the lower neighbour counts for in each. */
struct alignas(16) rows_between {
    int count;
    float weight[MOST_BETWEEN];
};

/* The first of them. */
__device__ static inline int first_after(int row, int size)
{
    return row <= 0 ? 0 : (row * (2 * size - 1) + size - 2) / (size - 1);
}

__device__ static inline rows_between rows_after(int row, int size)
{
    const int steps = 2 * size - 1, first = first_after(row, size);
    const float inverse = 1.0f / (float)steps;
    rows_between rows = {};
#pragma unroll
    for (int i = 0; i < MOST_BETWEEN; i++)
        if (first + i <= steps && (first + i) * (size - 1) < (row + 1) * steps) {
            rows.count = i + 1;
            rows.weight[i] = (float)((first + i) * (size - 1) - row * steps) * inverse;
        }
    return rows;
}

/* of_row[i]: of row first + i of a strip. Between barriers. */
__device__ static inline void fill_rows(int first, int end, int size, rows_between *of_row)
{
    __syncthreads();
    for (int i = tile_thread(); i < end - first; i += THREADS)
        of_row[i] = rows_after(first + i, size);
    __syncthreads();
}

/* The normalised column down a strip; `to` stands in the column's first large row there. */
template <typename T, int V>
__device__ static inline void write_column(large_column<T, V> &large, const small_map &m, const strip &place,
                                           const rows_between *of_row, const float *table, float least, T *to,
                                           int64_t to_row)
{
    large.read(place.first, m);
    large.advance(table);
    large.read(place.first + 1, m);
    for (int row = place.first; row < place.end; row++) {
        const rows_between rows = of_row[row - place.first];
        large.advance(table);
        if (row + 1 < place.end)
            large.read(row + 2, m);
#pragma unroll
        for (int i = 0; i < MOST_BETWEEN; i++)
            if (i < rows.count) {
                float value[V];
#pragma unroll
                for (int v = 0; v < V; v++)
                    value[v] = not_below(large.value(v, rows.weight[i]), least);
                store(to, value);
                to += to_row;
            }
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 3)
    normalize_kernel(const T *z, T *u, int u_stride, bn_statistics s, small_map m, int segments, int items, bool relu)
{
    __shared__ float table[2 * LANES * V];
    __shared__ rows_between of_row[STRIP];
    fill_affine<V>(s, m.channels, table);
    const int column = tile_column<V>();
    const float least = relu ? 0 : -INFINITY;
    const int64_t u_row = (int64_t)2 * m.width * u_stride;
    for (int item = (int)blockIdx.y; item < items; item += (int)gridDim.y) {
        const strip place = strip_at(m, segments, item);
        const int x = place.segment * (int)blockDim.y + (int)threadIdx.y;
        fill_rows(place.first, place.end, m.height, of_row);
        if (column >= m.channels || x >= 2 * m.width)
            continue;
        large_column<T, V> large(z, m, place.image, x, column);
        T *to = u + (int64_t)place.image * 2 * m.height * u_row + (int64_t)x * u_stride + column;
        write_column(large, m, place, of_row, table, least, to + first_after(place.first, m.height) * u_row, u_row);
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

/* ---- the gradient of the large feature map, gathered ---- */

/* The small columns [first, end) of a segment, and the large ones from `large` on that they are read by, which a block
 * has enough threads for. */
struct gather_columns {
    int first, end, large, large_end;
};

/* Small columns of a segment where `rows` threads lie along the large ones: all, or what has at most `rows` readers. */
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

/* A column of the gradient on its way down: the large rows between two small rows, read before they are needed. Also
 * what the small rows around them have got of them. */
template <typename T, int V, bool RELU> struct gradient_column {
    const T *dy; /* in the next large row */
    int64_t dy_row;
    pack<T, V> row[MOST_BETWEEN] = {};
    float upper[V] = {}, lower[V] = {};

    __device__ void read(const rows_between &rows)
    {
#pragma unroll
        for (int i = 0; i < MOST_BETWEEN; i++)
            if (i < rows.count)
                row[i] = load_raw<V>(dy + i * dy_row);
        dy += rows.count * dy_row;
    }

    /* Masks them and adds them to both small rows. */
    __device__ void add(const rows_between &rows, const large_column<T, V> &large)
    {
#pragma unroll
        for (int i = 0; i < MOST_BETWEEN; i++)
            if (i < rows.count) {
                const float weight = rows.weight[i];
#pragma unroll
                for (int v = 0; v < V; v++) {
                    const float g = !RELU || large.value(v, weight) > 0 ? to_float(row[i].element[v]) : 0;
                    upper[v] = fmaf(1 - weight, g, upper[v]);
                    lower[v] = fmaf(weight, g, lower[v]);
                }
            }
    }

    /* Goes on to the next small row. */
    __device__ void advance()
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            upper[v] = lower[v];
            lower[v] = 0;
        }
    }
};

/* A finished small row of the block, by large column: line[part][thread], so that no two threads meet in a bank. */
constexpr int line_part = 4;

template <int V> __device__ static inline void put_in_line(const float (&value)[V], float *line)
{
    constexpr int N = V < line_part ? V : line_part;
#pragma unroll
    for (int v = 0; v < V; v += N) {
        pack<float, N> part;
#pragma unroll
        for (int i = 0; i < N; i++)
            part.element[i] = value[v + i];
        *reinterpret_cast<pack<float, N> *>(line + v * THREADS + tile_thread() * N) = part;
    }
}

template <int V> __device__ static inline void take_from_line(const float *line, int thread, float (&value)[V])
{
    constexpr int N = V < line_part ? V : line_part;
#pragma unroll
    for (int v = 0; v < V; v += N) {
        const pack<float, N> part = load_raw<N>(line + v * THREADS + thread * N);
#pragma unroll
        for (int i = 0; i < N; i++)
            value[v + i] = part.element[i];
    }
}

/* A column of the small feature map: which of a block's large columns read it, and how much of it. */
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

    template <int V> __device__ void gather(const float *line, float (&sum)[V]) const
    {
#pragma unroll
        for (int i = 0; i < MOST_READERS; i++)
            if (i < count) {
                float value[V];
                take_from_line(line, (first + i) * (int)blockDim.x + (int)threadIdx.x, value);
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[v] = fmaf(weight[i], value[v], sum[v]);
            }
    }
};

/* Writes dg = Uᵀg at a place, where z is `of_z`, and adds it and dg * (z - mean) to the run. */
template <typename T, int V>
__device__ static inline void finish_place(const small_column &small, const float *line, const pack<T, V> &of_z, T *dg,
                                           const float *table, float (&run)[2][V])
{
    float sum[V] = {}, mean[V];
    take_table(table, 2, mean);
    small.gather(line, sum);
    store(dg, sum);
#pragma unroll
    for (int v = 0; v < V; v++) {
        run[0][v] += sum[v];
        run[1][v] = fmaf(sum[v], to_float(of_z.element[v]) - mean[v], run[1][v]);
    }
}

template <typename T> struct gather_arguments {
    const T *z, *dy;
    T *dg;
    int dy_stride, columns, segments, items;
};

/* What a block keeps of its channels and of a strip. */
template <int V> struct gather_tables {
    float affine[3 * LANES * V]; /* fill_affine_and_mean */
    rows_between of_row[STRIP + 1];
    alignas(16) float line[THREADS * V];
};

/* Uᵀg of a strip. Large rows are added to the two small rows around them in registers; a finished row goes to `line`,
 * where it is gathered along the columns. Holds barriers. */
template <bool RELU, typename T, int V>
__device__ static inline void gather_strip(const gather_arguments<T> &a, const small_map &m, const strip &place,
                                           gather_tables<V> &t, float (&run)[2][V])
{
    const gather_columns at = columns_of(m, a.columns, place.segment);
    const int column = tile_column<V>(), y = (int)threadIdx.y;
    const bool reads = column < m.channels && at.large + y < at.large_end;
    const bool writes = column < m.channels && at.first + y < at.end;
    const int x = writes ? at.first + y : at.first, large_x = reads ? at.large + y : at.large;
    const int begin = place.first > 0 ? place.first - 1 : 0; /* `first` also gets from the large rows above it */
    const int64_t small_row = (int64_t)m.width * m.channels, dy_row = (int64_t)2 * m.width * a.dy_stride;
    int64_t small_at = (place.image * m.height + place.first) * small_row + (int64_t)x * m.channels + column;
    const small_column small(m, at, x);
    large_column<T, V> large(a.z, m, place.image, large_x, column);
    gradient_column<T, V, RELU> gradient;
    gradient.dy_row = dy_row;
    gradient.dy = a.dy + ((int64_t)place.image * 2 * m.height + first_after(begin, m.height)) * dy_row +
                  (int64_t)large_x * a.dy_stride + column;
    fill_rows(begin, place.end, m.height, t.of_row);
    if (reads) {
        gradient.read(t.of_row[0]);
        large.read(begin, m);
        large.advance(t.affine);
        large.read(begin + 1, m);
    }
    for (int row = begin; row < place.end; row++) {
        const bool finished = row >= place.first;
        pack<T, V> of_z = {};
        if (finished && writes)
            of_z = load_raw<V>(a.z + small_at);
        if (reads) {
            large.advance(t.affine);
            gradient.add(t.of_row[row - begin], large);
            if (row + 1 < place.end) {
                gradient.read(t.of_row[row + 1 - begin]);
                large.read(row + 2, m);
            }
        }
        if (finished) {
            put_in_line(gradient.upper, t.line);
            __syncthreads();
            if (writes)
                finish_place(small, t.line, of_z, a.dg + small_at, t.affine, run);
            __syncthreads();
            small_at += small_row;
        }
        gradient.advance();
    }
}

/* Uᵀ of masked dy, and [sum of it, sum of it * (z - mean)] by channel. */
template <typename T, int V, bool RELU>
__global__ void __launch_bounds__(THREADS, 2)
    gather_kernel(gather_arguments<T> a, bn_statistics s, small_map m, double *partial)
{
    __shared__ gather_tables<V> tables;
    __shared__ double sums[2][THREADS * V];
    fill_affine_and_mean<V>(s, m.channels, tables.affine);
    clear_sums<V>(sums);
    for (int item = (int)blockIdx.y; item < a.items; item += (int)gridDim.y) {
        float run[2][V] = {};
        gather_strip<RELU>(a, m, strip_at(m, a.segments, item), tables, run);
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
                                       g.items};
        TRY(launch(k->request.node.attr.relu ? gather_kernel<T, V, true> : gather_kernel<T, V, false>,
                   grid_of(g, most_sum_blocks(tile)), tile_block(tile), 0, self->stream, a, s, m, partial));
        return combine(self, m, g, partial, totals_of(s, m.channels, args), (double *)args->out[0]);
    });
}

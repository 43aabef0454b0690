/* Sums in a fixed order: within a block, over the rows of a matrix, over a list of parts. No atomics: the grid and the
 * order depend on the shape alone, so every run on every GPU adds the same numbers in the same order.
 * Short runs are added in float, everything longer in double. */
#ifndef TESKD_KERNELS_CUDA_REDUCE_CUH
#define TESKD_KERNELS_CUDA_REDUCE_CUH

#include "vector.cuh"

enum {
    RUN = 16,            /* rows a thread adds in float */
    SUM_BLOCKS = 768,    /* about as many blocks share the rows of a matrix */
    SUM_MIN_ROWS = 4,    /* a thread has at least as many */
    COMBINE_COLUMNS = 8, /* of a block that adds parts; the other THREADS / 8 lie along the parts */
    COMBINE_LOADS = 8    /* parts that a thread loads before it adds them */
};

/* ---- within a block ---- */

struct plus {
    __device__ double operator()(double a, double b) const
    {
        return a + b;
    }
};

struct larger {
    __device__ double operator()(double a, double b) const
    {
        return b > a || b != b ? b : a; /* a NaN wins */
    }
};

/* The combination of all threads' values, for every thread. Block of whole warps along x; a barrier. */
template <typename Combine> __device__ inline double block_combine(double value, Combine combine)
{
    __shared__ double of_warp[32];
    for (int offset = 16; offset > 0; offset /= 2)
        value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++)
        value = combine(value, of_warp[warp]);
    __syncthreads();
    return value;
}

__device__ inline double block_sum(double value)
{
    return block_combine(value, plus());
}

__device__ inline double block_largest(double value)
{
    return block_combine(value, larger());
}

/* Adds the values of a tile's threads along its rows and calls use(i, sum of the tile's column i), each by one thread.
 * `sum` is THREADS * V; the caller puts a barrier before its next use. */
template <typename S, int V, typename Use> __device__ inline void sum_tile_rows(S (&value)[V], S *sum, Use use)
{
    constexpr int WARPS = THREADS / 32;
    const int lanes = (int)blockDim.x, warp = tile_thread() / 32;
    for (int offset = 16; offset >= lanes; offset /= 2)
#pragma unroll
        for (int v = 0; v < V; v++)
            value[v] += __shfl_xor_sync(0xFFFFFFFFu, value[v], offset);
    if (tile_thread() % 32 < lanes) /* one element next to the other: no two threads meet in a bank */
#pragma unroll
        for (int v = 0; v < V; v++)
            sum[(v * WARPS + warp) * lanes + (int)threadIdx.x] = value[v];
    __syncthreads();
    for (int i = tile_thread(); i < lanes * V; i += THREADS) {
        const int v = i / lanes, lane = i % lanes;
        S total = sum[v * WARPS * lanes + lane];
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            total += sum[(v * WARPS + w) * lanes + lane];
        use(lane * V + v, total);
    }
}

/* ---- over the rows of a matrix ---- */

/* A Source says what is added:
 *   KINDS                             how many sums a column has
 *   ROWS                              how many rows are loaded before the first is added; divides RUN
 *   struct state                      what a thread keeps in registers
 *   struct loaded                     the elements of a row, as they lie in memory
 *   begin(state, columns)             called by all threads, may hold barriers
 *   read(row, at)                     loads them; `at` is where they lie in a dense matrix
 *   add(state, row, at, loaded, run[KINDS][V])    adds them
 * Adds up to RUN rows, WHOLE: all of them are there. */
template <bool WHOLE, typename Source, int V>
__device__ inline void add_run(const Source &source, const typename Source::state &state, int64_t row, int64_t rows,
                               int64_t step, int columns, float (&run)[Source::KINDS][V])
{
    constexpr int ROWS = Source::ROWS;
    const int column = tile_column<V>();
#pragma unroll 1
    for (int i = 0; i < RUN && (WHOLE || row < rows); i += ROWS, row += ROWS * step) {
        typename Source::loaded elements[ROWS];
#pragma unroll
        for (int j = 0; j < ROWS; j++) { /* past the end the last row is loaded again */
            const int64_t here = WHOLE || row + j * step < rows ? row + j * step : rows - 1;
            elements[j] = source.read(here, here * columns + column);
        }
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            if (WHOLE || row + j * step < rows)
                source.add(state, row + j * step, (row + j * step) * columns + column, elements[j], run);
    }
}

/* partial[block][kind][column] */
template <typename Source, int V>
__global__ void __launch_bounds__(THREADS, 2)
    column_sums_kernel(Source source, int64_t rows, int columns, double *partial)
{
    constexpr int KINDS = Source::KINDS;
    __shared__ double tile[THREADS * V];
    const int64_t step = (int64_t)gridDim.y * blockDim.y;
    double total[KINDS][V] = {};
    typename Source::state state;
    source.begin(state, columns);
    if (tile_column<V>() < columns)
        for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step * RUN) {
            float run[KINDS][V] = {};
            if (row + (RUN - 1) * step < rows)
                add_run<true>(source, state, row, rows, step, columns, run);
            else
                add_run<false>(source, state, row, rows, step, columns, run);
#pragma unroll
            for (int kind = 0; kind < KINDS; kind++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    total[kind][v] += (double)run[kind][v];
        }
#pragma unroll
    for (int kind = 0; kind < KINDS; kind++) {
        sum_tile_rows(total[kind], tile, [&](int i, double sum) {
            if (tile_first<V>() + i < columns)
                partial[((int64_t)blockIdx.y * KINDS + kind) * columns + tile_first<V>() + i] = sum;
        });
        __syncthreads();
    }
}

/* A sum is what its column adds up to. */
struct as_it_is {
    __device__ double operator()(int, double total) const
    {
        return total;
    }
};

/* sums[i] = finish(i, sum of part[0..parts)[i]). Block {COMBINE_COLUMNS, THREADS / COMBINE_COLUMNS}. */
template <typename Out, typename Finish>
__global__ void __launch_bounds__(THREADS)
    combine_parts_kernel(const double *part, int parts, int count, Finish finish, Out *sums)
{
    __shared__ double tile[THREADS];
    const int i = (int)blockIdx.x * COMBINE_COLUMNS + (int)threadIdx.x;
    const int step = (int)blockDim.y;
    double total[1] = {0};
    for (int p = (int)threadIdx.y; i < count && p < parts; p += COMBINE_LOADS * step) {
        double value[COMBINE_LOADS];
#pragma unroll
        for (int j = 0; j < COMBINE_LOADS; j++)
            value[j] = p + j * step < parts ? part[(int64_t)(p + j * step) * count + i] : 0;
#pragma unroll
        for (int j = 0; j < COMBINE_LOADS; j++)
            total[0] += value[j];
    }
    sum_tile_rows(total, tile, [&](int, double sum) {
        if (i < count)
            sums[i] = (Out)finish(i, sum);
    });
}

static inline int sum_row_blocks(tile_shape tile, int64_t rows)
{
    int64_t blocks = divide_up(rows, (int64_t)tile.rows * SUM_MIN_ROWS), most = divide_up(SUM_BLOCKS, tile.tiles);
    return (int)(blocks < most ? blocks : most);
}

/* Workspace of column_sums for any dtype. */
static inline size_t column_sums_workspace(int64_t rows, int64_t columns, int kinds)
{
    int most = 0;
    for (int width = 1; width <= 8; width *= 2) {
        int blocks = sum_row_blocks(tile_of(columns, width), rows);
        most = blocks > most ? blocks : most;
    }
    return (size_t)most * (size_t)kinds * (size_t)columns * sizeof(double);
}

/* sums[kind][column] of a Source over [rows, columns]; with `sums` NULL the Source is only walked. */
template <int V, typename Source, typename Out, typename Finish>
int column_sums(const cuda_backend *self, Source source, int64_t rows, int columns, Finish finish, Out *sums,
                void *workspace)
{
    tile_shape tile = tile_of(columns, V);
    int parts = sum_row_blocks(tile, rows), count = Source::KINDS * columns;
    double *partial = (double *)workspace;
    TRY(launch(column_sums_kernel<Source, V>, dim3(tile.tiles, (unsigned)parts), tile_block(tile), 0, self->stream,
               source, rows, columns, partial));
    if (!sums)
        return 0;
    return launch(combine_parts_kernel<Out, Finish>, dim3((unsigned)divide_up(count, COMBINE_COLUMNS)),
                  dim3(COMBINE_COLUMNS, THREADS / COMBINE_COLUMNS), 0, self->stream, partial, parts, count, finish,
                  sums);
}

/* ---- over a list ---- */

/* sums[b] = scale * (values[b][0] + ... + values[b][count - 1]) + *before, block b for each; `before` may be NULL. */
static __global__ void __launch_bounds__(THREADS)
    sum_list_kernel(const double *values, int64_t count, double scale, const double *before, double *sums)
{
    double total = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x)
        total += values[blockIdx.x * count + i];
    total = block_sum(total);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = scale * total + (before ? *before : 0);
}

static inline int sum_lists(const cuda_backend *self, int lists, const double *values, int64_t count, double scale,
                            const double *before, double *sums)
{
    return launch(sum_list_kernel, dim3((unsigned)lists), dim3(THREADS), 0, self->stream, values, count, scale, before,
                  sums);
}

#endif

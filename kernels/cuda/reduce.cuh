/* Sums in a fixed order: within a block, over the rows of a matrix, over a list of parts. No atomics: the grid and the
 * order depend on the shape alone, so every run on every GPU adds the same numbers in the same order.
 * Short runs are added in float, everything longer in double. */
#ifndef TESKD_KERNELS_CUDA_REDUCE_CUH
#define TESKD_KERNELS_CUDA_REDUCE_CUH

#include "vector.cuh"

enum {
    RUN = 16,           /* rows a thread adds in float */
    SUM_BLOCKS = 768,   /* about as many blocks share the rows of a matrix */
    SUM_MIN_ROWS = 4,   /* a thread has at least as many */
    COMBINE_COLUMNS = 8 /* of a block that adds parts; the other THREADS / 8 lie along the parts */
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

/* Adds the values of a tile's threads along its rows: afterwards sum[i] is that of the tile's column i. The caller puts
 * a barrier between reading it and the next call. */
template <typename S, int V> __device__ inline void sum_tile_rows(const S (&value)[V], S *sum)
{
    const int columns = tile_columns<V>();
#pragma unroll
    for (int v = 0; v < V; v++)
        sum[(int)threadIdx.y * columns + (int)threadIdx.x * V + v] = value[v];
    __syncthreads();
    for (int i = tile_thread(); i < columns; i += THREADS) {
        S total = sum[i];
        for (int y = 1; y < (int)blockDim.y; y++)
            total += sum[y * columns + i];
        sum[i] = total;
    }
    __syncthreads();
}

/* ---- over the rows of a matrix ---- */

/* partial[block][kind][column]. A Source says what is added:
 *   KINDS                             how many sums a column has
 *   struct state                      what a thread keeps in registers
 *   begin(state, columns)             called by all threads, may hold barriers
 *   add(state, row, at, run[KINDS][V])     adds the elements of a row, at `at` in a dense matrix */
template <typename Source, int V>
__global__ void __launch_bounds__(THREADS, 2)
    column_sums_kernel(Source source, int64_t rows, int columns, double *partial)
{
    constexpr int KINDS = Source::KINDS;
    __shared__ double tile[THREADS * V];
    const int column = tile_column<V>();
    const int64_t step = (int64_t)gridDim.y * blockDim.y;
    double total[KINDS][V] = {};
    typename Source::state state;
    source.begin(state, columns);
    if (column < columns)
        for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step * RUN) {
            float run[KINDS][V] = {};
#pragma unroll 4
            for (int i = 0; i < RUN; i++)
                if (row + i * step < rows)
                    source.add(state, row + i * step, (row + i * step) * columns + column, run);
#pragma unroll
            for (int kind = 0; kind < KINDS; kind++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    total[kind][v] += (double)run[kind][v];
        }
#pragma unroll
    for (int kind = 0; kind < KINDS; kind++) {
        sum_tile_rows(total[kind], tile);
        for (int i = tile_thread(); i < tile_columns<V>(); i += THREADS)
            if (tile_first<V>() + i < columns)
                partial[((int64_t)blockIdx.y * KINDS + kind) * columns + tile_first<V>() + i] = tile[i];
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
    double total[1] = {0};
    for (int p = (int)threadIdx.y; i < count && p < parts; p += (int)blockDim.y)
        total[0] += part[(int64_t)p * count + i];
    sum_tile_rows(total, tile);
    if (threadIdx.y == 0 && i < count)
        sums[i] = (Out)finish(i, tile[threadIdx.x]);
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

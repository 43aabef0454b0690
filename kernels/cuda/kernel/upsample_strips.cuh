/* How kernels over an upsampled feature map and the small one it comes from are shared out, and two sums of each
 * channel that they make on the way.
 *
 * A block walks strips of a few small rows, each thread down one column of the small or of the large one. The order of
 * a sum depends on the shape alone. */
#ifndef TESKD_KERNELS_CUDA_UPSAMPLE_STRIPS_CUH
#define TESKD_KERNELS_CUDA_UPSAMPLE_STRIPS_CUH

#include "reduce.cuh"

enum {
    STRIP = 8 /* small rows that a block walks before it goes on to another place */
};

struct small_map {
    int images, height, width, channels;
};

static inline small_map small_map_of(const kernel *k)
{
    const tensor_desc &z = k->request.in[0];
    return small_map{z.dim[0], z.dim[1], z.dim[2], z.dim[3]};
}

/* Rows [first, end) of an image of the small feature map, and the block's share of its columns. */
struct strip {
    int image, first, end, segment;
};

__device__ static inline int strips_of(const small_map &m)
{
    return (m.height + STRIP - 1) / STRIP;
}

__device__ static inline strip strip_at(const small_map &m, int segments, int item)
{
    const int part = item / segments, first = part % strips_of(m) * STRIP;
    return strip{part / strips_of(m), first, first + STRIP < m.height ? first + STRIP : m.height, item % segments};
}

/* How a kernel's blocks share the strips, `segments` of columns for each. */
struct strip_grid {
    tile_shape tile;
    int segments, items;
};

static inline strip_grid strips_over(const small_map &m, tile_shape tile, int64_t segments)
{
    return strip_grid{tile, (int)segments, (int)(m.images * divide_up(m.height, STRIP) * segments)};
}

static inline dim3 grid_of(const strip_grid &g, int64_t most)
{
    return dim3(g.tile.tiles, (unsigned)(g.items < most ? g.items : most));
}

/* ---- two sums of each channel, over strips ---- */

/* sums[kind][v * THREADS + thread]: a thread adds what it has of a strip to its own. */
template <int V> __device__ static inline void clear_sums(double (*sums)[THREADS * V])
{
#pragma unroll
    for (int v = 0; v < V; v++)
        sums[0][v * THREADS + tile_thread()] = sums[1][v * THREADS + tile_thread()] = 0;
}

template <int V> __device__ static inline void add_strip(const float (&run)[2][V], double (*sums)[THREADS * V])
{
#pragma unroll
    for (int v = 0; v < V; v++) {
        sums[0][v * THREADS + tile_thread()] += (double)run[0][v];
        sums[1][v * THREADS + tile_thread()] += (double)run[1][v];
    }
}

/* partial[block][kind][channel] */
template <int V>
__device__ static inline void finish_sums(double (*sums)[THREADS * V], const small_map &m, double *partial)
{
    for (int kind = 0; kind < 2; kind++) {
        double own[V];
#pragma unroll
        for (int v = 0; v < V; v++)
            own[v] = sums[kind][v * THREADS + tile_thread()];
        __syncthreads(); /* the same memory takes the sums of warps */
        sum_tile_rows(own, sums[kind], [&](int i, double sum) {
            if (tile_first<V>() + i < m.channels)
                partial[((int64_t)blockIdx.y * 2 + kind) * m.channels + tile_first<V>() + i] = sum;
        });
    }
}

static inline int64_t most_sum_blocks(tile_shape tile)
{
    return divide_up(SUM_BLOCKS, tile.tiles);
}

template <typename Finish>
static int combine(const cuda_backend *self, const small_map &m, const strip_grid &g, const double *partial,
                   Finish finish, double *sums)
{
    return launch(combine_parts_kernel<double, Finish>, dim3((unsigned)divide_up(2 * m.channels, COMBINE_COLUMNS)),
                  dim3(COMBINE_COLUMNS, THREADS / COMBINE_COLUMNS), 0, self->stream, partial,
                  (int)grid_of(g, most_sum_blocks(g.tile)).y, 2 * m.channels, finish, sums);
}

/* Bytes of `partial`. */
static inline size_t strip_sums_workspace(tile_shape tile, int channels)
{
    return (size_t)most_sum_blocks(tile) * 2 * (size_t)channels * sizeof(double);
}

#endif

/* The one way kernels are started, how many threads they get, and the choice of a template by dtype and width.
 *
 * Launches go through cudaLaunchKernel with typed arguments and never through <<<>>>, so that a runtime that runs
 * blocks on the CPU can take its place. Host code; any thread. */
#ifndef TESKD_KERNELS_CUDA_LAUNCH_CUH
#define TESKD_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/lower/cuda_backend.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "base/error.h"
}

enum {
    THREADS = 256,           /* of a block */
    LANES = 32,              /* at most as many threads of a block lie along the channels */
    BLOCKS_A_PROCESSOR = 16, /* more do not help a kernel that strides over the grid */
    MOST_GRID_ROWS = 65535   /* of CUDA */
};

template <typename T> struct type_is {
    using type = T;
};

template <int V> struct width_is {
    static constexpr int value = V;
};

template <typename... P>
int launch(void (*function)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
           typename type_is<P>::type... args)
{
    void *list[] = {&args...};
    return cuda_check(cudaLaunchKernel(function, grid, block, list, shared_bytes, stream), "starting a kernel");
}

/* Calls function(type_is<T>()) with the T that `type` stands for. */
template <typename F> int with_type(uint8_t type, F function)
{
    switch (type) {
    case DTYPE_F32:
        return function(type_is<float>());
    case DTYPE_F16:
        return function(type_is<__half>());
    case DTYPE_BF16:
        return function(type_is<__nv_bfloat16>());
    default:
        return error_set(ERROR_KERNEL, "the GPU's native kernels take float32, float16 and bfloat16 only");
    }
}

/* The elements of 16 bytes. */
template <typename T> constexpr int full_width = (int)(16 / sizeof(T));

/* Calls function(type_is<T>(), width_is<V>()): V is 16 bytes' worth when that divides `count`, else 1. */
template <typename F> int with_vectors(uint8_t type, int64_t count, F function)
{
    return with_type(type, [&](auto t) {
        constexpr int V = full_width<typename decltype(t)::type>;
        return count % V == 0 ? function(t, width_is<V>()) : function(t, width_is<1>());
    });
}

/* The same for kernels that only move elements: all 16-bit types are one. */
template <typename F> int with_copies(uint8_t type, int64_t count, F function)
{
    if (dtype_bytes(type) == sizeof(uint16_t))
        return count % 8 == 0 ? function(type_is<uint16_t>(), width_is<8>())
                              : function(type_is<uint16_t>(), width_is<1>());
    return count % 4 == 0 ? function(type_is<float>(), width_is<4>()) : function(type_is<float>(), width_is<1>());
}

static inline int64_t divide_up(int64_t count, int64_t by)
{
    return (count + by - 1) / by;
}

/* Blocks for a kernel that strides over `vectors` items. */
static inline dim3 flat_grid(const cuda_backend *self, int64_t vectors)
{
    int64_t blocks = divide_up(vectors, THREADS), most = (int64_t)self->multiprocessors * BLOCKS_A_PROCESSOR;
    return dim3((unsigned)(blocks < most ? blocks : most));
}

/* A block shaped lanes x rows over a [rows, columns] matrix, each thread with `width` columns: one tile of columns. */
typedef struct {
    unsigned lanes, rows; /* lanes * rows == THREADS */
    unsigned tiles;       /* that the columns need */
} tile_shape;

static inline tile_shape tile_of(int64_t columns, int width)
{
    int64_t groups = divide_up(columns, width);
    unsigned lanes = 1;
    while (lanes < LANES && lanes < groups)
        lanes *= 2;
    return tile_shape{lanes, THREADS / lanes, (unsigned)divide_up(groups, lanes)};
}

/* Grid of a kernel without sums whose tiles stride over the rows. */
static inline dim3 tile_grid(const cuda_backend *self, tile_shape tile, int64_t rows,
                             int blocks_a_processor = BLOCKS_A_PROCESSOR)
{
    int64_t blocks = divide_up(rows, tile.rows);
    int64_t most = (int64_t)self->multiprocessors * blocks_a_processor / tile.tiles;
    most = most > 1 ? most : 1;
    return dim3(tile.tiles, (unsigned)(blocks < most ? blocks : most));
}

static inline dim3 tile_block(tile_shape tile)
{
    return dim3(tile.lanes, tile.rows);
}

#endif

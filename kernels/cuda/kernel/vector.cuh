/* What a thread holds: V neighbouring channels in float, read and written 16 bytes at a time; and where in a grid the
 * thread stands. Pointers are 16-byte aligned wherever V is more than 1. */
#ifndef TESKD_KERNELS_CUDA_VECTOR_CUH
#define TESKD_KERNELS_CUDA_VECTOR_CUH

#include "launch.cuh"

#include <type_traits>

template <typename T, int V> struct alignas(sizeof(T) * V) pack {
    T element[V];
};

__device__ inline float to_float(float x)
{
    return x;
}

__device__ inline float to_float(__half x)
{
    return __half2float(x);
}

__device__ inline float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

__device__ inline void from_float(float x, float &to)
{
    to = x;
}

__device__ inline void from_float(float x, __half &to)
{
    to = __float2half_rn(x);
}

__device__ inline void from_float(float x, __nv_bfloat16 &to)
{
    to = __float2bfloat16_rn(x);
}

/* Elements of T that one access moves when V are wanted. */
template <typename T, int V> constexpr int access_width = V < full_width<T> ? V : full_width<T>;

template <typename T, int V> __device__ inline void load(const T *from, float (&to)[V])
{
    constexpr int N = access_width<T, V>;
#pragma unroll
    for (int i = 0; i < V; i += N) {
        pack<T, N> p = *reinterpret_cast<const pack<T, N> *>(from + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            to[i + j] = to_float(p.element[j]);
    }
}

template <typename T, int V> __device__ inline void store(T *to, const float (&from)[V])
{
    constexpr int N = access_width<T, V>;
#pragma unroll
    for (int i = 0; i < V; i += N) {
        pack<T, N> p;
#pragma unroll
        for (int j = 0; j < N; j++)
            from_float(from[i + j], p.element[j]);
        *reinterpret_cast<pack<T, N> *>(to + i) = p;
    }
}

/* The V elements as they lie in memory, in one access: what is loaded before any of it is needed stays in few
 * registers. */
template <int V, typename T> __device__ inline pack<T, V> load_raw(const T *from)
{
    return *reinterpret_cast<const pack<T, V> *>(from);
}

template <typename T, int V> __device__ inline void to_floats(const pack<T, V> &from, float (&to)[V])
{
#pragma unroll
    for (int v = 0; v < V; v++)
        to[v] = to_float(from.element[v]);
}

/* The same as words, which at() takes apart: for kernels that hold many elements. A pack of 16-bit ones would be taken
 * apart when it is loaded, and so take twice the registers. */
template <typename T, int V> struct alignas(sizeof(T) * V) packed_words {
    using word = typename std::conditional<(sizeof(T) * V < sizeof(uint32_t)), uint16_t, uint32_t>::type;
    word words[sizeof(T) * V / sizeof(word)];

    __device__ float at(int v) const
    {
        constexpr int IN_WORD = (int)(sizeof(word) / sizeof(T));
        const word bits = (word)(words[v / IN_WORD] >> v % IN_WORD * 16);
        T element;
        memcpy(&element, &bits, sizeof element);
        return to_float(element);
    }
};

template <int V, typename T> __device__ inline packed_words<T, V> load_words(const T *from)
{
    return *reinterpret_cast<const packed_words<T, V> *>(from);
}

template <typename T, int V> __device__ inline void to_floats(const packed_words<T, V> &from, float (&to)[V])
{
#pragma unroll
    for (int v = 0; v < V; v++)
        to[v] = from.at(v);
}

template <typename T, int V> __device__ inline void copy(const T *from, T *to)
{
    *reinterpret_cast<pack<T, V> *>(to) = load_raw<V>(from);
}

/* The larger; keeps a NaN in y. */
__device__ inline float not_below(float y, float least)
{
    return y < least ? least : y;
}

/* ReLU that keeps a NaN. */
__device__ inline float rectify(float y)
{
    return not_below(y, 0);
}

/* A thread's first item, and its stride, in a kernel over a flat_grid. */
__device__ inline int64_t flat_index()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline int64_t flat_stride()
{
    return (int64_t)gridDim.x * blockDim.x;
}

/* In a tile (see tile_shape): the thread's number in the block, its first column, the tile's first column. */
__device__ inline int tile_thread()
{
    return (int)(threadIdx.y * blockDim.x + threadIdx.x);
}

template <int V> __device__ inline int tile_columns()
{
    return (int)blockDim.x * V;
}

template <int V> __device__ inline int tile_first()
{
    return (int)blockIdx.x * tile_columns<V>();
}

template <int V> __device__ inline int tile_column()
{
    return tile_first<V>() + (int)threadIdx.x * V;
}

#endif

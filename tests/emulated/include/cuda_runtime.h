/* What kernels see: the language's words, the thread's place, barriers and warp exchanges, and the launch. Takes the
 * toolkit's place, so that .cu files compile as C++ and run on the emulated device. Blocks run one after another, hence
 * static shared memory is a static variable, and an atomic or a fence keeps nobody apart. Dynamic shared memory is not
 * there: no kernel uses it. */
#ifndef TESKD_TESTS_EMULATED_CUDA_RUNTIME_H
#define TESKD_TESTS_EMULATED_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <math.h>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __syncthreads() emulated_barrier(__FILE__, __LINE__)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

/* Waits until every thread of the block is at this barrier. */
void emulated_barrier(const char *file, int line);

/* Waits until the warp's threads of `mask` are here; returns what the one at `lane` brought. */
uint64_t emulated_exchange(unsigned mask, uint64_t value, unsigned lane);

/* Runs `thread` for each thread of each block, at once. */
cudaError_t emulated_run(dim3 grid, dim3 block, const std::function<void()> &thread);

/* Whether a GPU takes a grid and block like these. */
bool emulated_is_shape(dim3 grid, dim3 block);

/* What went wrong in the last kernel that failed. */
const char *emulated_failure_text();

/* Starts or records a kernel. */
cudaError_t emulated_start(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                           const std::function<cudaError_t()> &kernel);

inline unsigned emulated_lane()
{
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <typename T> T __shfl_sync(unsigned mask, T value, int lane)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a warp exchanges up to 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = emulated_exchange(mask, bits, (unsigned)lane % 32);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits)
{
    return __shfl_sync(mask, value, (int)(emulated_lane() ^ (unsigned)bits));
}

/* As the device has it: a lane past the end gets its own value. */
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta)
{
    unsigned lane = emulated_lane() + delta;
    return __shfl_sync(mask, value, (int)(lane < 32 ? lane : emulated_lane()));
}

/* Counts up to `most`, then from zero again; returns what was there. */
inline unsigned atomicInc(unsigned *count, unsigned most)
{
    unsigned before = *count;
    *count = before >= most ? 0 : before + 1;
    return before;
}

inline void __threadfence()
{
}

/* The arguments are copied: the kernel may run later, and more than once. */
template <typename... P, size_t... I>
std::function<cudaError_t()> emulated_kernel(void (*function)(P...), dim3 grid, dim3 block, void **args,
                                             std::index_sequence<I...>)
{
    std::tuple<P...> copies{*static_cast<P *>(args[I])...};
    return [=] { return emulated_run(grid, block, [&] { std::apply(function, copies); }); };
}

template <typename... P>
cudaError_t cudaLaunchKernel(void (*function)(P...), dim3 grid, dim3 block, void **args, size_t shared_bytes,
                             cudaStream_t stream)
{
    return emulated_start(grid, block, shared_bytes, stream,
                          emulated_kernel(function, grid, block, args, std::index_sequence_for<P...>()));
}

#endif

/* The emulated device itself: places of threads, barriers, warp exchanges, and what it must report. */
#include "cuda_runtime.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>

extern "C" {
#include <cmocka.h>
}

template <typename... P, typename... A> static cudaError_t start(void (*kernel)(P...), dim3 grid, dim3 block, A... args)
{
    return emulated_run(grid, block, [=] { kernel(args...); });
}

/* Each thread writes its number; the block's order of threads must not matter. */
static void number_kernel(unsigned *out)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread + 1;
}

static void every_thread_runs_once(void **)
{
    static unsigned out[2 * 3 * 2 * 24];
    assert_int_equal(start(number_kernel, dim3(2, 3, 2), dim3(4, 3, 2), (unsigned *)out), cudaSuccess);
    for (unsigned i = 0; i < 12 * 24; i++)
        assert_int_equal(out[i], i / 24 * 1000 + i % 24 + 1);
}

/* Shared memory is turned around, several times. */
static void reverse_kernel(unsigned *out, unsigned rounds)
{
    __shared__ unsigned shared[100];
    unsigned value = threadIdx.x + blockIdx.x;
    for (unsigned i = 0; i < rounds; i++) {
        shared[threadIdx.x] = value;
        __syncthreads();
        value = shared[blockDim.x - 1 - threadIdx.x] + 1;
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

static void barriers_order_shared_memory(void **)
{
    unsigned out[300];
    assert_int_equal(start(reverse_kernel, dim3(3), dim3(100), (unsigned *)out, 3u), cudaSuccess);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(out[i], 99 - i % 100 + i / 100 + 3);
}

/* Without the barrier, one of the two orders of threads reads what was not written: odd blocks run backwards. */
static void racing_kernel(unsigned *out)
{
    __shared__ unsigned shared[64];
    shared[threadIdx.x] = blockIdx.x + 1;
    out[blockIdx.x * 64 + threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}

static void a_missing_barrier_shows(void **)
{
    unsigned out[128], wrong = 0;
    assert_int_equal(start(racing_kernel, dim3(2), dim3(64), (unsigned *)out), cudaSuccess);
    for (unsigned i = 0; i < 128; i++)
        wrong += out[i] != i / 64 + 1;
    assert_true(wrong > 0);
}

/* Each block leans on what the one before it has written. */
static void leaning_kernel(unsigned *out)
{
    out[blockIdx.x + 1] = out[blockIdx.x] + 1;
}

static void blocks_that_need_one_another_show(void **)
{
    unsigned wrong = 0;
    for (int launch = 0; launch < 2; launch++) {
        unsigned out[5] = {0};
        assert_int_equal(start(leaning_kernel, dim3(4), dim3(1), (unsigned *)out), cudaSuccess);
        wrong += out[4] != 4;
    }
    assert_int_equal(wrong, 1);
}

static void sum_kernel(double *out)
{
    double value = threadIdx.x;
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
    float next = __shfl_down_sync(0xFFFFFFFFu, (float)threadIdx.x, 1);
    int first = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x, 0);
    out[threadIdx.x] = value + 1000 * (double)next + 1e6 * first;
}

static void warps_exchange(void **)
{
    double out[96];
    assert_int_equal(start(sum_kernel, dim3(1), dim3(96), (double *)out), cudaSuccess);
    for (int i = 0; i < 96; i++) {
        int first = i / 32 * 32, next = i % 32 == 31 ? i : i + 1;
        assert_true(out[i] == 32.0 * first + 496 + 1000.0 * next + 1e6 * first);
    }
}

static void leaving_kernel(unsigned last)
{
    if (threadIdx.x > last)
        return;
    __syncthreads();
}

static void parting_kernel()
{
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
}

/* Half a warp exchanges with all of it. */
static void lonely_kernel(double *out)
{
    if (threadIdx.x < 16)
        *out = __shfl_xor_sync(0xFFFFFFFFu, 1.0, 1);
}

static void assert_failed(cudaError_t status, const char *text)
{
    assert_int_equal(status, cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_non_null(strstr(cudaGetErrorString(status), text));
}

static void mismatches_are_reported(void **)
{
    double out = 0;
    assert_failed(start(leaving_kernel, dim3(1), dim3(64), 40u), "has finished");
    assert_failed(start(parting_kernel, dim3(1), dim3(64)), "waits elsewhere");
    assert_failed(start(lonely_kernel, dim3(1), dim3(32), &out), "warp exchange");
    assert_int_equal(start(leaving_kernel, dim3(1), dim3(64), 63u), cudaSuccess);
}

static void bad_shapes_are_refused(void **)
{
    assert_int_equal(start(leaving_kernel, dim3(1), dim3(2048), 0u), cudaErrorInvalidConfiguration);
    assert_int_equal(start(leaving_kernel, dim3(0), dim3(32), 0u), cudaErrorInvalidConfiguration);
    assert_int_equal(start(leaving_kernel, dim3(1, 65536), dim3(32), 0u), cudaErrorInvalidConfiguration);
    cudaGetLastError();
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_once),  cmocka_unit_test(barriers_order_shared_memory),
        cmocka_unit_test(a_missing_barrier_shows), cmocka_unit_test(blocks_that_need_one_another_show),
        cmocka_unit_test(warps_exchange),          cmocka_unit_test(mismatches_are_reported),
        cmocka_unit_test(bad_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}

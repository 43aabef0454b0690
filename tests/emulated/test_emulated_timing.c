/* Measurements on the emulated device: what is measured, what fails, and that nothing of either is left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "device_fixture.h"
#include "emulated.h"
#include "kernels/cuda/lower/cuda_backend.h"
#include "kernels/cuda/lower/timing.h"

#include <math.h>
#include <stdint.h>

enum { FAILING_CALLS = 200 };

typedef struct {
    cudaStream_t stream;
    int calls, fails_at; /* the call that fails; 0 for none */
    bool waits;
} work_state;

static int done;

static void count_one(const void *args)
{
    (void)args;
    done++;
}

static int work(const void *what)
{
    work_state *w = (work_state *)(uintptr_t)what;
    if (++w->calls == w->fails_at)
        return -1;
    if (w->waits && cudaStreamSynchronize(w->stream) != cudaSuccess)
        return -1;
    return emulated_submit(w->stream, count_one, &(char){0}, 1) == cudaSuccess ? 0 : -1;
}

static cudaStream_t stream_of(backend *device)
{
    return ((cuda_backend *)device)->stream;
}

/* The stream does its work at once, not into a capture that was left open. */
static void expect_usable(backend *device)
{
    const work_state w = {.stream = stream_of(device)};
    ok(device->ops->synchronize(device)); /* what was started before a failure */
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    int before = done;
    assert_int_equal(work(&w), 0);
    ok(device->ops->synchronize(device));
    assert_int_equal(done, before + 1);
}

static void works(void **state)
{
    backend *device = *state;
    work_state w = {.stream = stream_of(device)};
    float time = cuda_time_work(&((cuda_backend *)device)->timer, work, &w, INFINITY);
    assert_true(isfinite(time) && time >= 0);
    assert_true(w.calls >= 3 && done > w.calls); /* twice, then captured; and replayed more often than that */
    assert_true(cuda_work_works(w.stream, work, &w));
    expect_usable(device);
}

static void fails(void **state)
{
    backend *device = *state;
    for (int at = 1; at <= 4; at++) {
        work_state w = {.stream = stream_of(device), .fails_at = at};
        assert_true(isinf(cuda_time_work(&((cuda_backend *)device)->timer, work, &w, INFINITY)));
        w = (work_state){.stream = stream_of(device), .fails_at = 1};
        assert_false(cuda_work_works(w.stream, work, &w));
        expect_usable(device);
    }
}

/* What cannot be in a captured step has no time, though it runs. */
static void cannot_be_captured(void **state)
{
    backend *device = *state;
    work_state w = {.stream = stream_of(device), .waits = true};
    assert_true(isinf(cuda_time_work(&((cuda_backend *)device)->timer, work, &w, INFINITY)));
    assert_true(w.calls == 3);
    expect_usable(device);
}

static void every_failure(void **state)
{
    backend *device = *state;
    int failures = 0;
    for (int nth = 1; nth < FAILING_CALLS; nth++) {
        work_state w = {.stream = stream_of(device)};
        emulated_fail(nth, cudaErrorMemoryAllocation);
        cuda_time_work(&((cuda_backend *)device)->timer, work, &w, INFINITY);
        bool pending = emulated_failure_pending();
        emulated_fail(0, cudaSuccess);
        if (pending)
            break;
        failures++;
        expect_usable(device);
    }
    assert_in_range(failures, 10, FAILING_CALLS - 2);
}

static void memory(void **state)
{
    backend *device = *state;
    void *piece[3];
    size_t used = emulated_used();
    float values[8];
    assert_true(cuda_timing_memory(stream_of(device), 3, (const size_t[3]){32, 0, 300}, piece));
    assert_ptr_equal(piece[1], (char *)piece[0] + 256);
    assert_ptr_equal(piece[2], piece[1]);
    ok(device->ops->read(device, values, piece[0], sizeof values));
    for (int i = 0; i < 8; i++)
        assert_true(values[i] == 0);
    cudaFree(piece[0]);
    assert_false(cuda_timing_memory(stream_of(device), 1, (const size_t[1]){(size_t)1 << 40}, piece));
    assert_int_equal(emulated_used(), used);
    expect_usable(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {ON_DEVICE(works), ON_DEVICE(fails), ON_DEVICE(cannot_be_captured),
                                       ON_DEVICE(every_failure), ON_DEVICE(memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The CUDA backend's memory, copies, launches, captures and timestamps on the emulated device, and what is said when
 * something fails. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "device_fixture.h"
#include "emulated_backend.h"

/* ---- memory ---- */

static void a_write_has_read_its_source(void **state)
{
    backend *device = *state;
    static const size_t counts[] = {1, COUNT, 16384, 16385, 100000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        float *values = malloc(counts[i] * sizeof *values);
        assert_non_null(values);
        fill_counting(values, counts[i], 3);
        float *memory = device_floats(device, values, counts[i]);
        fill_counting(values, counts[i], 1000);
        free(values);
        expect_counting(device, memory, counts[i], 3);
        device->ops->free(device, memory);
    }
}

/* More than there are slots of pinned memory, all different, from one source. */
static void many_small_writes(void **state)
{
    enum { WRITES = 1000 };
    backend *device = *state;
    float *memory = device_floats(device, NULL, WRITES);
    for (int i = 0; i < WRITES; i++) {
        float value = 5 + (float)i;
        ok(device->ops->write(device, memory + i, &value, sizeof value));
    }
    expect_counting(device, memory, WRITES, 5);
    device->ops->free(device, memory);
}

static void small_writes_do_not_wait(void **state)
{
    backend *device = *state;
    char *values = calloc(1, 65536);
    assert_non_null(values);
    void *memory = device->ops->alloc(device, 65536);
    ok(device->ops->zero(device, memory, 65536));
    assert_int_equal(emulated_pending(), 1);
    for (size_t bytes = 1; bytes <= 65536; bytes *= 16)
        ok(device->ops->write(device, memory, values, bytes));
    assert_true(emulated_pending() > 5);
    ok(device->ops->synchronize(device));
    assert_int_equal(emulated_pending(), 0);
    device->ops->free(device, memory);
    free(values);
}

static void copies_and_zeros(void **state)
{
    backend *device = *state;
    float values[COUNT];
    fill_counting(values, COUNT, 1);
    float *a = device_floats(device, values, COUNT), *b = device_floats(device, NULL, COUNT);
    ok(device->ops->copy(device, b, a, sizeof values));
    ok(device->ops->zero(device, a, sizeof values / 2));
    expect_counting(device, b, COUNT, 1);
    ok(device->ops->read(device, values, a, sizeof values));
    for (int i = 0; i < COUNT; i++)
        assert_true(values[i] == (i < COUNT / 2 ? 0 : 1 + (float)i));
    device->ops->free(device, a);
    device->ops->free(device, b);
}

static void out_of_memory(void **state)
{
    backend *device = *state;
    emulated_machine machine = emulated_get_machine();
    size_t bytes;
    machine.memory = 1 << 20;
    emulated_set_machine(&machine);
    void *half = device->ops->alloc(device, 1 << 19);
    assert_non_null(half);
    assert_null(device->ops->alloc(device, (1 << 19) + 1));
    says(ERROR_KERNEL, ERROR_KERNEL, "memory of the GPU: out of memory");
    ok(device->ops->free_bytes(device, &bytes));
    assert_int_equal(bytes, 1 << 19);
    void *rest = device->ops->alloc(device, 1 << 19), *nothing = NULL;
    assert_non_null(rest);
    ok(device->ops->synchronize(device)); /* the refusal is no error of what comes after it */
    device->ops->free(device, half);
    device->ops->free(device, rest);
    nothing = device->ops->alloc(device, 0);
    assert_non_null(nothing);
    device->ops->free(device, nothing);
    device->ops->free(device, NULL);
}

/* How a process ends that reads device memory. */
static int touch(const volatile float *memory)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL);
        float value = *memory;
        _exit(value == 7 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void the_host_is_kept_out(void **state)
{
    backend *device = *state;
    float *memory = device_floats(device, &(float){7}, 1);
    ok(device->ops->synchronize(device));
    assert_int_not_equal(touch(memory), 0);
    emulated_protect(false);
    assert_int_equal(touch(memory), 0);
    emulated_protect(true);
    device->ops->free(device, memory);
}

/* ---- launches and captures ---- */

/* A sum of two vectors, and a product of two matrices: one of the backend's native kernels and one of a library. */
typedef struct {
    kernel *add, *product;
    kernel_args add_args, product_args;
    float *a, *b, *sum, *weight, *result;
    void *workspace;
} problem;

static kernel *prepare(backend *device, const kernel_request *request, problem *p)
{
    kernel *k = NULL;
    size_t bytes = 0;
    ok(device->ops->prepare(device, request, &k, &bytes));
    if (bytes > 0 && !p->workspace)
        p->workspace = device->ops->alloc(device, bytes);
    return k;
}

/* sum = a + b; result = sum times a weight that is one on the diagonal. */
static void open_problem(backend *device, problem *p)
{
    enum { SIDE = 8 };
    const tensor_desc vector = {.dim = {SIDE, 1, 1, SIDE}, .dtype = DTYPE_F32, .kind = KIND_ACTIVATION};
    const tensor_desc weight = {.dim = {SIDE, 1, 1, SIDE}, .dtype = DTYPE_F32, .layout = LAYOUT_OI};
    kernel_request add = {
        .node = {.op = OP_ADD, .n_in = 2, .n_out = 1}, .in = {vector, vector}, .out = {vector}, .label = "a layer"};
    kernel_request product = {
        .node = {.op = OP_LINEAR, .n_in = 2, .n_out = 1}, .in = {vector, weight}, .out = {vector}, .label = "a head"};
    float values[COUNT], one[COUNT] = {0};
    *p = (problem){0};
    fill_counting(values, COUNT, 0);
    for (int i = 0; i < SIDE; i++)
        one[i * SIDE + i] = 1;
    p->a = device_floats(device, values, COUNT);
    p->b = device_floats(device, values, COUNT);
    p->sum = device_floats(device, NULL, COUNT);
    p->weight = device_floats(device, one, COUNT);
    p->result = device_floats(device, NULL, COUNT);
    p->add = prepare(device, &add, p);
    p->product = prepare(device, &product, p);
    p->add_args = (kernel_args){.in = {p->a, p->b}, .out = {p->sum}};
    p->product_args = (kernel_args){.in = {p->sum, p->weight}, .out = {p->result}, .workspace = p->workspace};
}

static void close_problem(backend *device, problem *p)
{
    void *const memory[] = {p->a, p->b, p->sum, p->weight, p->result, p->workspace};
    device->ops->release(device, p->add);
    device->ops->release(device, p->product);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        device->ops->free(device, memory[i]);
}

static void launch(backend *device, problem *p)
{
    ok(device->ops->launch(device, p->add, &p->add_args));
    ok(device->ops->launch(device, p->product, &p->product_args));
}

/* b = first - its old place in the row, so that the results are first, first + 1, ... */
static void write_b(backend *device, const problem *p, float first)
{
    float values[COUNT];
    for (int i = 0; i < COUNT; i++)
        values[i] = first;
    ok(device->ops->write(device, p->b, values, sizeof values));
}

static void launches_are_done_in_order(void **state)
{
    backend *device = *state;
    problem p;
    open_problem(device, &p);
    write_b(device, &p, 10);
    launch(device, &p);
    assert_true(emulated_pending() > 0);
    write_b(device, &p, 20); /* comes after the launches */
    expect_counting(device, p.result, COUNT, 10);
    launch(device, &p);
    expect_counting(device, p.result, COUNT, 20);
    close_problem(device, &p);
}

static void a_captured_step_is_replayed(void **state)
{
    backend *device = *state;
    captured_step *r = NULL;
    problem p;
    open_problem(device, &p);
    ok(device->ops->zero(device, p.result, COUNT * sizeof(float)));
    ok(device->ops->capture_begin(device));
    launch(device, &p);
    ok(device->ops->copy(device, p.a, p.result, COUNT * sizeof(float)));
    ok(device->ops->zero(device, p.sum, COUNT * sizeof(float)));
    p.add_args.out[0] = NULL; /* the capture keeps what it was given */
    ok(device->ops->capture_end(device, &r));
    assert_non_null(r);
    ok(device->ops->synchronize(device));
    expect_counting(device, p.a, COUNT, 0); /* nothing has run */
    for (int i = 1; i < 4; i++) {
        write_b(device, &p, 10);
        ok(device->ops->replay(device, r));
        expect_counting(device, p.a, COUNT, 10 * (float)i);
    }
    device->ops->release_captured(device, r);
    close_problem(device, &p);
}

typedef int forbidden(backend *device, problem *p);

static int reads(backend *device, problem *p)
{
    float value;
    return device->ops->read(device, &value, p->a, sizeof value);
}

static int writes(backend *device, problem *p)
{
    return device->ops->write(device, p->a, &(float){1}, sizeof(float));
}

static int waits(backend *device, problem *p)
{
    (void)p;
    return device->ops->synchronize(device);
}

static int allocates(backend *device, problem *p)
{
    (void)p;
    return device->ops->alloc(device, 256) ? 0 : ERROR_KERNEL;
}

static int uses_an_upload(backend *device, problem *p)
{
    (void)p;
    float *pinned = device->ops->alloc_pinned(device, sizeof *pinned);
    device->ops->free_pinned(device, pinned);
    return pinned ? 0 : ERROR_KERNEL;
}

static void what_cannot_be_captured(void **state)
{
    static const struct {
        forbidden *call;
        const char *words;
    } cases[] = {{reads, "reading from the GPU: operation not permitted"},
                 {waits, "waiting for the GPU: operation not permitted"},
                 {allocates, "memory of the GPU: operation not permitted"},
                 {uses_an_upload, "pinned memory: operation not permitted"}};
    backend *device = *state;
    problem p;
    open_problem(device, &p);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        captured_step *r = NULL;
        ok(device->ops->capture_begin(device));
        launch(device, &p);
        assert_int_equal(cases[i].call(device, &p), ERROR_KERNEL);
        says(device->ops->capture_end(device, &r), ERROR_KERNEL, cases[i].words);
        assert_null(r);
        ok(device->ops->synchronize(device)); /* the device goes on */
    }
    captured_step *r = NULL;
    ok(device->ops->capture_begin(device));
    says(writes(device, &p), ERROR_KERNEL, "a write cannot be captured");
    ok(device->ops->capture_end(device, &r));
    device->ops->release_captured(device, r);
    ok(writes(device, &p));
    close_problem(device, &p);
}

static void every_failure_of_a_capture(void **state)
{
    backend *device = *state;
    problem p;
    int failures = -1, code;
    open_problem(device, &p);
    ok(device->ops->synchronize(device));
    do {
        captured_step *r = NULL;
        emulated_fail(++failures + 1, cudaErrorInvalidResourceHandle);
        error_set(ERROR_KERNEL, "something else before");
        code = device->ops->capture_begin(device);
        if (code == 0) {
            device->ops->launch(device, p.add, &p.add_args);
            code = device->ops->capture_end(device, &r);
            assert_true((code == 0) == (r != NULL));
            assert_null(strstr(error_message(), "something else"));
            device->ops->release_captured(device, r);
        }
        bool came = !emulated_failure_pending();
        emulated_fail(0, cudaSuccess);
        if (!came)
            break;
        ok(device->ops->synchronize(device));
    } while (failures < 100);
    assert_int_equal(code, 0);
    assert_int_equal(failures, 5); /* begin, launch, end, instantiate, upload */
    close_problem(device, &p);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void timestamps(void **state)
{
    backend *device = *state;
    double seconds[3] = {-1, -1, -1};
    problem p;
    open_problem(device, &p);
    launch(device, &p); /* the first is slower */
    ok(device->ops->synchronize(device));
    for (uint32_t i = 0; i < 4; i++) {
        for (int n = 0; i > 0 && i != 2 && n < 10; n++)
            launch(device, &p);
        ok(device->ops->timestamp(device, TIMES_OF_LAUNCHES, i));
    }
    double begin = now(); /* all is done from here on */
    ok(device->ops->elapsed(device, TIMES_OF_LAUNCHES, 4, seconds));
    assert_true(seconds[0] > 0 && seconds[1] >= 0 && seconds[2] > 0);
    assert_true(seconds[0] + seconds[1] + seconds[2] <= now() - begin);
    says(device->ops->elapsed(device, TIMES_OF_LAUNCHES, 5, seconds), ERROR_KERNEL,
         "times of 5 timestamps are wanted, 4 were made");
    close_problem(device, &p);
}

/* Each replay notes them anew, and another row's are left alone. */
static void captured_timestamps(void **state)
{
    backend *device = *state;
    captured_step *captured = NULL;
    double seconds, other;
    problem p;
    open_problem(device, &p);
    for (uint32_t i = 0; i < 2; i++) {
        ok(device->ops->timestamp(device, TIMES_OF_LAUNCHES, i));
        ok(device->ops->timestamp(device, TIMES_OF_WAITS, i));
    }
    ok(device->ops->synchronize(device));
    ok(device->ops->elapsed(device, TIMES_OF_LAUNCHES, 2, &other));
    ok(device->ops->capture_begin(device));
    ok(device->ops->timestamp(device, TIMES_OF_WAITS, 0));
    for (int n = 0; n < 20; n++)
        launch(device, &p);
    ok(device->ops->timestamp(device, TIMES_OF_WAITS, 1));
    ok(device->ops->capture_end(device, &captured));
    for (int replay = 0; replay < 2; replay++) {
        double begin = now();
        ok(device->ops->replay(device, captured));
        ok(device->ops->synchronize(device));
        ok(device->ops->elapsed(device, TIMES_OF_WAITS, 2, &seconds));
        assert_true(seconds > 0 && seconds <= now() - begin);
    }
    ok(device->ops->elapsed(device, TIMES_OF_LAUNCHES, 2, &seconds));
    assert_true(seconds == other);
    device->ops->release_captured(device, captured);
    close_problem(device, &p);
}

static void launches_have_names(void **state)
{
    backend *device = *state;
    problem p;
    open_problem(device, &p);
    ok(device->ops->launch(device, p.add, &p.add_args));
    assert_string_equal(emulated_launch_range(), "add of a layer");
    assert_int_equal(emulated_open_ranges(), 0);
    emulated_fail(1, cudaErrorInvalidConfiguration);
    says(device->ops->launch(device, p.add, &p.add_args), ERROR_KERNEL, "starting a kernel: invalid configuration");
    assert_int_equal(emulated_open_ranges(), 0);
    close_problem(device, &p);
}

static void late_errors_say_so(void **state)
{
    backend *device = *state;
    problem p;
    open_problem(device, &p);
    assert_int_equal(emulated_submit_failure(((cuda_backend *)device)->stream, cudaErrorIllegalAddress), cudaSuccess);
    ok(device->ops->launch(device, p.add, &p.add_args)); /* nothing is known yet */
    says(device->ops->synchronize(device), ERROR_KERNEL, "an earlier launch may be the cause: run.capture = no");
    says(device->ops->launch(device, p.add, &p.add_args), ERROR_KERNEL, "CUDA_LAUNCH_BLOCKING=1");
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    emulated_fail(1, cudaErrorInvalidValue);
    assert_int_equal(device->ops->launch(device, p.add, &p.add_args), ERROR_KERNEL);
    assert_null(strstr(error_message(), "CUDA_LAUNCH_BLOCKING"));
    close_problem(device, &p);
}

/* ---- the emulated device's own captures ---- */

static void append(const void *args)
{
    int **place = *(int ***)(uintptr_t)args;
    *(*place)++ = 1;
}

/* Two streams: what forks off a capture must join it again, and is done when the first stream waits for it. */
static void captures_of_two_streams(void **state)
{
    (void)state;
    int done[4] = {0}, *place = done, **argument = &place;
    cudaStream_t a, b;
    cudaEvent_t fork_event, join_event;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    assert_int_equal(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreate(&fork_event), cudaSuccess);
    assert_int_equal(cudaEventCreate(&join_event), cudaSuccess);
    for (int joined = 0; joined < 2; joined++) {
        assert_int_equal(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        assert_int_equal(cudaEventRecord(fork_event, a), cudaSuccess);
        assert_int_equal(cudaStreamWaitEvent(b, fork_event, 0), cudaSuccess);
        assert_int_equal(emulated_submit(b, append, &argument, sizeof argument), cudaSuccess);
        if (joined) {
            assert_int_equal(cudaEventRecord(join_event, b), cudaSuccess);
            assert_int_equal(cudaStreamWaitEvent(a, join_event, 0), cudaSuccess);
        }
        assert_int_equal(cudaStreamEndCapture(a, &graph), joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    }
    assert_int_equal(cudaEventSynchronize(join_event), cudaErrorCapturedEvent);
    assert_int_equal(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    for (int i = 0; i < 2; i++)
        assert_int_equal(cudaGraphLaunch(ready, a), cudaSuccess);
    assert_int_equal(done[0], 0);
    assert_int_equal(cudaStreamSynchronize(a), cudaSuccess);
    assert_true(done[0] == 1 && done[1] == 1 && done[2] == 0);
    cudaGraphExecDestroy(ready);
    cudaEventDestroy(fork_event);
    cudaEventDestroy(join_event);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DEVICE(a_write_has_read_its_source),
        ON_DEVICE(many_small_writes),
        ON_DEVICE(small_writes_do_not_wait),
        ON_DEVICE(copies_and_zeros),
        ON_DEVICE(out_of_memory),
        ON_DEVICE(the_host_is_kept_out),
        ON_DEVICE(launches_are_done_in_order),
        ON_DEVICE(a_captured_step_is_replayed),
        ON_DEVICE(what_cannot_be_captured),
        ON_DEVICE(every_failure_of_a_capture),
        ON_DEVICE(timestamps),
        ON_DEVICE(captured_timestamps),
        ON_DEVICE(launches_have_names),
        ON_DEVICE(late_errors_say_so),
        ON_DEVICE(captures_of_two_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A run with sums between emulated GPUs in which one rank fails, ended the way a main program has to:
 * nccl_failing_rank MODE RANK
 *   killed    RANK dies of SIGKILL in the middle of a sum      abort  there, RANK fails with a message of its own
 *   queued    as killed, but the others have gone on to queue steps, until a write has to wait for one of them
 *   stuck     as killed, but the others wait for the GPU without another look
 *   deadline  no rank fails: FAKE_NCCL lets the sums hang
 * Each rank says on stdout what it saw; stderr has what a user would read. */
#include "base/error.h"
#include "dist/nccl_reduction.h"
#include "emulated.h"
#include "kernels/cuda/device/cuda_open.h"
#include "kernels/cuda/library/libraries.h"
#include "run/program.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000, FAILING_STEP = 5, N = 1 << 20, PATIENCE_SECONDS = 4, GRACE_SECONDS = 2 };

typedef struct {
    comm *ranks;
    const char *mode;
    bool fails; /* this rank */
    backend *device;
    cudaStream_t compute;
    reduction *sums;
} run;

static volatile sig_atomic_t asked_to_stop;

static void ask_to_stop(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static void end_process(const char *message)
{
    if (message)
        fprintf(stderr, "nccl_failing_rank: %s\n", message);
    _exit(1);
}

static bool is_mode(const run *r, const char *mode)
{
    return strcmp(r->mode, mode) == 0;
}

static int check(cudaError_t status)
{
    CHECK(status == cudaSuccess, ERROR_KERNEL, "%s", cudaGetErrorString(status));
    return 0;
}

static void say_when(void)
{
    printf("fails at %lld\n", (long long)time(NULL));
    fflush(stdout);
}

/* Some of its pieces are done, and the peers go on with it. */
static int fail_in_the_sum(const run *r)
{
    say_when();
    for (int i = 0; i < 50; i++)
        cudaStreamQuery(r->compute);
    if (is_mode(r, "abort"))
        return error_set(ERROR_FILE, "the disk is full");
    raise(SIGKILL);
    return 0;
}

static int run_sums(const run *r)
{
    void *gradient = NULL;
    TRY(check(cudaMalloc(&gradient, N * sizeof(float))));
    for (int step = 0; step < STEPS; step++) {
        TRY(check(cudaMemsetAsync(gradient, 0, N * sizeof(float), r->compute)));
        TRY(r->sums->ops->start(r->sums, gradient, N, COMM_F32));
        TRY(r->sums->ops->finish(r->sums));
        if (step == FAILING_STEP && r->fails && !is_mode(r, "deadline"))
            TRY(fail_in_the_sum(r));
        if (step == FAILING_STEP && is_mode(r, "stuck"))
            TRY(check(cudaStreamSynchronize(r->compute)));
        TRY(r->sums->ops->synchronize(r->sums));
    }
    return 0;
}

/* The positive part of the input `x`, reduced over the ranks. */
static int add_program(runtime *device, program **out)
{
    graph g;
    graph_init(&g, DTYPE_F32);
    value_id x = graph_input(&g, "x", DTYPE_F32, (const int32_t[4]){1, 1, 1, 64});
    value_id y = graph_apply(&g, OP_RELU, NULL, 1, &x);
    graph_keep(&g, y, "y");
    graph_emit(&g, OP_ALL_REDUCE, NULL, 1, &y, 0, NULL);
    return runtime_add(device, &g, out);
}

/* Nobody waits for the GPU but by a write, once its memory for writes under way is full; the dying rank waits for that.
 */
static int run_queued(const run *r)
{
    enum { BEFORE_DEATH_SECONDS = 2 };
    const float values[64] = {0};
    runtime queued;
    program *step = NULL;
    store tensors = {.device = r->device};
    runtime_open(&queued, &(runtime_options){.device = r->device, .tensors = &tensors, .reducer = r->sums});
    TRY(add_program(&queued, &step));
    TRY(runtime_bind(&queued));
    for (int i = 0; i < STEPS; i++) {
        if (i == FAILING_STEP && r->fails) {
            sleep(BEFORE_DEATH_SECONDS);
            TRY(fail_in_the_sum(r));
        }
        TRY(program_write(step, &queued, "x", values, sizeof values));
        TRY(program_run(&queued, step));
    }
    return error_set(ERROR_INTERNAL, "nothing has failed");
}

static int open_and_run(run *r)
{
    cuda_libraries *libraries = NULL;
    const nccl_options options = {.deadline_seconds = comm_patience(r->ranks)};
    TRY(cuda_libraries_open(&libraries));
    emulated_defer(true);
    TRY(backend_cuda_open(&r->device, &(cuda_options){.precision = CUDA_FP32}));
    r->compute = cuda_backend_stream(r->device);
    TRY(nccl_reduction_open(&r->sums, libraries, r->ranks, r->compute, &options));
    if (r->fails && is_mode(r, "deadline"))
        say_when();
    return is_mode(r, "queued") ? run_queued(r) : run_sums(r);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    if (argc != 3)
        return 2;
    run r = {.mode = argv[1]};
    const comm_limits limits = {.patience_seconds = is_mode(&r, "deadline") ? PATIENCE_SECONDS : COMM_PATIENCE_SECONDS,
                                .grace_seconds = is_mode(&r, "stuck") ? GRACE_SECONDS : COMM_GRACE_SECONDS,
                                .silence_seconds = COMM_SILENCE_SECONDS,
                                .end_process = end_process};
    if (comm_open(&r.ranks, &limits) < 0) {
        if (error_message()[0])
            fprintf(stderr, "nccl_failing_rank: %s\n", error_message());
        return 2;
    }
    r.fails = comm_describe(r.ranks)->rank == atoi(argv[2]);
    int status = open_and_run(&r);
    printf("rank %d saw: %s\n", comm_describe(r.ranks)->rank, error_message());
    fflush(stdout);
    if (!comm_peer_failed(r.ranks)) {
        comm_sign_error(r.ranks, status);
        fprintf(stderr, "nccl_failing_rank: %s\n", error_message());
    }
    comm_abort(r.ranks, status);
    _exit(1);
}

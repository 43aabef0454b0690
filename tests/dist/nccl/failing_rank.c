/* A run with sums between emulated GPUs in which one rank fails in the middle of a sum, ended the way a main program
 * has to: nccl_failing_rank MODE RANK killed  RANK dies of SIGKILL       abort   RANK fails with a message of its own
 * Each rank says on stdout what it saw; stderr has what a user would read. */
#include "base/error.h"
#include "dist/nccl_reduction.h"
#include "emulated.h"
#include "kernels/libraries.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000, FAILING_STEP = 5, N = 1 << 20 };

static volatile sig_atomic_t asked_to_stop;

static void ask_to_stop(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static int check(cudaError_t status)
{
    CHECK(status == cudaSuccess, ERROR_KERNEL, "%s", cudaGetErrorString(status));
    return 0;
}

/* Some of its pieces are done, and the peers go on with it. */
static int fail_in_the_sum(cudaStream_t compute, const char *mode)
{
    printf("fails at %lld\n", (long long)time(NULL));
    fflush(stdout);
    for (int i = 0; i < 50; i++)
        cudaStreamQuery(compute);
    if (strcmp(mode, "killed") == 0)
        raise(SIGKILL);
    return error_set(ERROR_FILE, "the disk is full");
}

static int run(reduction *sums, cudaStream_t compute, const char *mode, bool fails)
{
    void *gradient = NULL;
    TRY(check(cudaMalloc(&gradient, N * sizeof(float))));
    for (int step = 0; step < STEPS; step++) {
        TRY(check(cudaMemsetAsync(gradient, 0, N * sizeof(float), compute)));
        TRY(sums->ops->start(sums, gradient, N, COMM_F32));
        TRY(sums->ops->finish(sums));
        if (step == FAILING_STEP && fails)
            TRY(fail_in_the_sum(compute, mode));
        TRY(sums->ops->synchronize(sums));
    }
    return 0;
}

static int open_and_run(comm *c, const char *mode, bool fails)
{
    cuda_libraries *libraries = NULL;
    cudaStream_t compute = NULL;
    reduction *sums = NULL;
    TRY(cuda_libraries_open(&libraries));
    emulated_defer(true);
    TRY(check(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking)));
    TRY(nccl_reduction_open(&sums, libraries, c, compute, &(nccl_options){.deadline_seconds = 600}));
    int status = run(sums, compute, mode, fails);
    printf("rank %d saw: %s\n", comm_describe(c)->rank, error_message());
    fflush(stdout);
    sums->ops->close(sums);
    return status;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    comm *c = NULL;
    if (argc != 3)
        return 2;
    if (comm_open(&c, NULL) < 0) {
        fprintf(stderr, "nccl_failing_rank: %s\n", error_message());
        return 2;
    }
    int status = open_and_run(c, argv[1], comm_describe(c)->rank == atoi(argv[2]));
    if (!comm_peer_failed(c)) {
        comm_sign_error(c, status);
        fprintf(stderr, "nccl_failing_rank: %s\n", error_message());
    }
    comm_abort(c, status);
    _exit(1);
}

/* A run in which one rank fails, ended the way a main program has to: failing_rank MODE RANK
 *   killed  RANK dies of SIGKILL between two sums       busy  the same, while the others are deep in a computation
 *   abort   RANK fails with a message of its own        agree RANK fails in something that the ranks agree on
 *   signal  as abort, by a signal
 *   slow    as agree, and RANK takes its time to report stuck as killed, and the others never look again
 *   silent  RANK lives, but the others hear nothing more of it in MPI
 *   open    nobody fails: open and close
 * Each rank says on stdout what it saw; stderr has what a user would read. */
#include "base/error.h"
#include "dist/comm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000, FAILING_STEP = 20, N = 5000, SLOW_SECONDS = 4, GRACE_SECONDS = 2, PATIENCE_SECONDS = 3 };

static volatile sig_atomic_t asked_to_stop;

static void ask_to_stop(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static void sleep_for(int seconds)
{
    for (int i = 0; i < seconds; i++)
        sleep(1); /* signals cut it short */
}

static void end_process(const char *message)
{
    if (message)
        fprintf(stderr, "failing_rank: %s\n", message);
    _exit(1);
}

static int fail(comm *c, const char *mode, bool fails)
{
    if (fails) { /* the ten seconds of the test begin here: starting may take long on a host without name service */
        printf("fails at %lld\n", (long long)time(NULL));
        fflush(stdout);
    }
    if (fails && (strcmp(mode, "killed") == 0 || strcmp(mode, "busy") == 0 || strcmp(mode, "stuck") == 0))
        raise(SIGKILL);
    if (strcmp(mode, "busy") == 0)
        sleep_for(30);
    if (strcmp(mode, "stuck") == 0 || (fails && strcmp(mode, "silent") == 0))
        sleep_for(1000);
    if (fails && strcmp(mode, "abort") == 0)
        return error_set(ERROR_FILE, "the disk is full");
    if (fails && strcmp(mode, "signal") == 0)
        return error_set(ERROR_STOPPED, "stopped by SIGUSR2");
    if (strcmp(mode, "agree") == 0 || strcmp(mode, "slow") == 0)
        return comm_agree(c, fails ? error_set(ERROR_FILE, "the disk is full") : 0);
    return 0;
}

static int step(comm *c, const char *mode, bool fails, int number)
{
    static float gradient[N];
    comm_request request = {0};
    for (int i = 0; i < N; i++)
        gradient[i] = 1.0f;
    TRY(comm_all_reduce_start(c, gradient, N, COMM_F32, &request));
    if (number == FAILING_STEP)
        TRY(fail(c, mode, fails));
    return comm_wait(c, &request);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    if (argc != 3)
        return 2;
    /* Only where it is tested: elsewhere ranks may be slow. */
    const comm_limits limits = {.patience_seconds =
                                    strcmp(argv[1], "silent") == 0 ? PATIENCE_SECONDS : COMM_PATIENCE_SECONDS,
                                .grace_seconds = strcmp(argv[1], "busy") == 0 ? COMM_GRACE_SECONDS : GRACE_SECONDS,
                                .silence_seconds = COMM_SILENCE_SECONDS,
                                .end_process = end_process};
    comm *c = NULL;
    if (comm_open(&c, &limits) < 0) {
        if (error_message()[0])
            fprintf(stderr, "failing_rank: %s\n", error_message());
        return 2;
    }
    int rank = comm_describe(c)->rank, status = 0;
    bool fails = rank == atoi(argv[2]), opens_only = strcmp(argv[1], "open") == 0;
    for (int i = 0; i < STEPS && status == 0 && !opens_only; i++)
        status = step(c, argv[1], fails, i);
    if (status == 0) {
        comm_close(c);
        return 0;
    }
    printf("rank %d saw: %s%s\n", rank, error_message(), comm_peer_code(c) == ERROR_STOPPED ? " (a signal)" : "");
    fflush(stdout);
    if (fails && strcmp(argv[1], "slow") == 0)
        sleep_for(SLOW_SECONDS);
    if (!comm_peer_failed(c)) {
        comm_sign_error(c, status);
        fprintf(stderr, "failing_rank: %s\n", error_message());
    }
    comm_abort(c, status);
    _exit(1);
}

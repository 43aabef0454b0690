/* Owns the process: picks the subcommand, prints the one message of a failure, and alone exits.
 * Exit codes: 0, 1 for a failed run, 2 for wrong usage or settings, 75 when a signal stopped the training. */
#include "base/error.h"
#include "cli/commands.h"
#include "session/agreement.h"
#include "session/threads.h"
#include "train/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const command *const commands[] = {&command_train, &command_eval, &command_export,    &command_import,
                                          &command_bench, &command_plan, &command_preflight, &command_reference,
                                          &command_data,  &command_info};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out)
{
    fprintf(out, "usage: teskd --config FILE [--set section.key=value ...]\n"
                 "       teskd COMMAND [options]\n\n"
                 "Trains a network together with three students of its own (TESKD). On several ranks: mpirun -np N "
                 "teskd ...\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\nteskd COMMAND --help lists the options of a command, teskd train --help all settings.\n"
                 "Exit codes: 0; 1 for a failed run; 2 for wrong usage or settings; 75 when a signal stopped the "
                 "training.\n");
}

static void print_command_help(const command *c, const options *o, FILE *out)
{
    if (c->help) {
        c->help(o, out);
        return;
    }
    fprintf(out, "usage: teskd %s [options] %s\n\n%s.\n\n", c->name, c->usage, c->summary);
    options_help(c->options, out);
    if (c->uses_settings) {
        fprintf(out, "\nsettings:\n");
        settings_help(out);
    }
}

static const command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

/* `teskd --config F` and every other option without a command is training. */
static bool is_named(char **argv)
{
    return argv[1][0] != '-';
}

static const command *chosen_command(char **argv)
{
    return is_named(argv) ? find_command(argv[1]) : &command_train;
}

static int agree_on_options(comm *ranks, const options *o)
{
    char text[1024];
    options_describe(o, text, sizeof text);
    TRY(agree_on_settings(ranks, &o->config));
    return agree_on_text(ranks, "command line", text);
}

static int run_command(int argc, char **argv, logger *log, comm *ranks)
{
    bool named = is_named(argv), first = comm_describe(ranks)->rank == 0;
    const command *c = chosen_command(argv);
    TRY(agree_on_program(ranks));
    if (!c)
        return comm_agree(ranks, error_set(ERROR_USAGE, "there is no command \"%s\"; see teskd --help", argv[1]));
    static char train_name[] = "train";
    if (named) {
        argc--;
        argv++;
    } else {
        argv[0] = train_name;
    }
    options o;
    TRY(comm_agree(ranks, options_read(&o, argc, argv, c->options)));
    TRY(agree_on_options(ranks, &o));
    if (o.is_recipe && !o.help && !o.print_config && !o.json)
        log_info(log, "settings from %s", o.config_path);
    if (!o.help) {
        int status = c->run(&o, log, ranks);
        return status == ERROR_USAGE ? comm_agree(ranks, status) : status; /* the same on all ranks: one tells */
    }
    if (first && named)
        print_command_help(c, &o, stdout);
    else if (first)
        print_usage(stdout);
    return 0;
}

static int exit_code(int status)
{
    switch (status) {
    case ERROR_USAGE:
    case ERROR_SETTINGS:
        return 2;
    case ERROR_STOPPED:
        return 75; /* EX_TEMPFAIL: batch scripts submit the job again */
    default:
        return 1;
    }
}

/* What ends a process whose main thread is stuck for good (dist/comm.h): an exit handler would get stuck with it. */
static void end_process(const char *message)
{
    if (message)
        fprintf(stderr, "teskd: %s\n", message);
    _exit(1);
}

/* Ranks that do not know of each other yet cannot agree on who speaks: two do, since the signal may be the launcher's,
 * after the death of one. It reads for as long as a rank lives. */
static void end_before_ranks(const char *signal)
{
    static const struct timespec reading = {.tv_nsec = 200000000};
    if (comm_expected_rank() <= 1)
        fprintf(stderr,
                "teskd: rank %d: stopped by %s while MPI was being opened, by somebody or by the launcher after the "
                "death of another rank; start it again as it was\n",
                comm_expected_rank(), signal);
    nanosleep(&reading, NULL);
}

/* What ends a training that a signal reaches before its first step; called from another thread. */
static void end_before_start(void *context, const char *signal)
{
    comm *ranks = atomic_load((_Atomic(comm *) *)context);
    error_set(ERROR_STOPPED, "stopped by %s before the first step; start it again as it was", signal);
    if (!ranks)
        end_before_ranks(signal);
    else if (comm_leave_early(ranks, ERROR_STOPPED))
        fprintf(stderr, "teskd: %s\n", error_message());
    _exit(exit_code(ERROR_STOPPED));
}

/* A file that is opened later must not take the place of a standard one that was closed: the log would go there. */
static bool fill_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

/* A write that fails says so by its error: a pipe without a reader, a file at its size limit. */
static void take_errors_for_signals(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* What is printed at once is written at once, so that the reason of a failed write is known (base/log.c). */
static void widen_output(void)
{
    static char buffer[1 << 16];
    if (isatty(STDOUT_FILENO) != 1)
        setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
}

/* Exit handlers must not run beside a thread that cannot be ended. */
static int end_in_order(comm *ranks)
{
    bool has_left_thread = comm_has_left_thread(ranks);
    comm_close(ranks);
    if (has_left_thread)
        _exit(0);
    return 0;
}

int main(int argc, char **argv)
{
    static _Atomic(comm *) opened; /* for another thread */
    const comm_limits limits = {.patience_seconds = COMM_PATIENCE_SECONDS,
                                .grace_seconds = COMM_GRACE_SECONDS,
                                .silence_seconds = COMM_SILENCE_SECONDS,
                                .end_process = end_process};
    comm *ranks = NULL;
    logger log;
    if (!fill_standard_files()) {
        fprintf(stderr, "teskd: /dev/null, for a standard file that is closed: %s\n", strerror(errno));
        return 1;
    }
    take_errors_for_signals();
    signals_take_back();
    widen_output();
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    const command *c = chosen_command(argv);
    if (c && c->stops)
        signals_block();
    threads_wait_briefly(argv);
    int status = c && c->stops ? signals_listen(end_before_start, &opened) : 0;
    if (status == 0)
        status = comm_open(&ranks, &limits);
    if (status < 0) {
        if (error_message()[0])
            fprintf(stderr, "teskd: %s\n", error_message());
        return exit_code(status);
    }
    atomic_store(&opened, ranks);
    const comm_info *info = comm_describe(ranks);
    log_open(&log, info->rank, info->size, info->host);
    status = run_command(argc, argv, &log, ranks);
    signals_heed(); /* it ends by itself from here */
    if (status < 0)
        log_is_note(&log); /* what failed first is told */
    int written = log_close(&log);
    if (status == 0)
        status = comm_agree(ranks, written);
    if (status == 0)
        return end_in_order(ranks);
    if (!comm_peer_failed(ranks)) {
        comm_sign_error(ranks, status);
        fprintf(stderr, "teskd: %s\n", error_message());
    }
    comm_abort(ranks, status);
    const int peer = comm_peer_code(ranks); /* it may have left while this rank was still hearing of the same */
    _exit(exit_code(peer < 0 ? peer : status));
}

/* Owns the order of a preflight and the table of its checks. Invariant: every rank takes part in every check, and all
 * judge the same findings, so that they come to the same outcome. A check that stalls is left in its thread, and the
 * process ends without waiting for it. Threads: the caller's, and one at a time for checks of a host's own. */
#include "tools/preflight/preflight.h"
#include "base/error.h"
#include "base/thread.h"
#include "tools/preflight/check.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const preflight_check checks[] = {
    {.name = "program", .run = check_program, .compare = COMPARE_TEXT, .alone = true},
    {.name = "libraries", .run = check_libraries, .compare = COMPARE_TEXT, .alone = true, .only_note = true},
    {.name = "device", .run = check_device, .compare = COMPARE_TEXT, .only_note = true},
    {.name = "cores", .run = check_cores},
    {.name = "compute", .unit = "GFLOP/s", .run = check_compute, .compare = COMPARE_MORE, .limit = 0.5},
    {.name = "GPUs", .run = check_gpus, .compare = COMPARE_TEXT, .alone = true, .only_note = true},
    {.name = "GPU state", .run = check_gpu_state, .alone = true},
    {.name = "data", .run = check_data, .compare = COMPARE_TEXT, .alone = true},
    {.name = "data read",
     .unit = "MB/s",
     .run = check_data_read,
     .compare = COMPARE_MORE,
     .limit = 0.25,
     .alone = true},
    {.name = "stage", .unit = "MB/s", .run = check_stage, .compare = COMPARE_MORE, .limit = 0.25, .alone = true},
    {.name = "output", .unit = "MB/s", .run = check_output, .alone = true},
    {.name = "clock", .unit = "ms", .run = check_clock, .compare = COMPARE_NEAR, .limit = 1000},
    {.name = "latency", .unit = "us", .run = check_latency, .compare = COMPARE_LESS, .limit = 5},
    {.name = "sends", .unit = "MB/s", .run = check_sends, .compare = COMPARE_MORE, .limit = 0.5},
    {.name = "receives", .unit = "MB/s", .run = check_receives, .compare = COMPARE_MORE, .limit = 0.5},
    {.name = "inside", .unit = "MB/s", .run = check_inside, .compare = COMPARE_MORE, .limit = 0.5},
};
enum { CHECKS = sizeof checks / sizeof checks[0] };

/* ---- one check on this rank ---- */

/* A check in a thread of its own. `mutex` guards the members below it. */
typedef struct {
    const preflight *p;
    const preflight_check *check;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool is_done;
    finding found;
} errand;

static void take_failure(finding *mine, int status)
{
    if (status >= 0)
        return;
    mine->verdict = VERDICT_FAULT;
    snprintf(mine->problem, sizeof mine->problem, "%s", error_message());
}

static void *do_errand(void *argument)
{
    errand *r = argument;
    finding found = {.value = NAN};
    take_failure(&found, r->check->run(r->p, &found));
    pthread_mutex_lock(&r->mutex);
    r->found = found;
    r->is_done = true;
    pthread_cond_signal(&r->ended);
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

static errand *new_errand(const preflight *p, const preflight_check *check)
{
    errand *r = calloc(1, sizeof *r);
    pthread_condattr_t attributes;
    if (!r)
        return NULL;
    r->p = p;
    r->check = check;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&r->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    return r;
}

static void free_errand(errand *r)
{
    pthread_cond_destroy(&r->ended);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

static bool await_errand(errand *r, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    int error = 0;
    pthread_mutex_lock(&r->mutex);
    while (!r->is_done && error == 0)
        error = pthread_cond_timedwait(&r->ended, &r->mutex, &until);
    const bool is_done = r->is_done;
    pthread_mutex_unlock(&r->mutex);
    return is_done;
}

/* A thread that is stuck in a dead file system or driver cannot be ended, and keeps its errand. */
static void leave_errand(const preflight *p, finding *mine)
{
    comm_leave_thread(p->ranks);
    mine->verdict = VERDICT_FAULT;
    snprintf(mine->problem, sizeof mine->problem, "no answer after %g s: a file system or a driver hangs (--patience)",
             p->options.patience);
}

static int run_alone(const preflight *p, const preflight_check *check, finding *mine)
{
    pthread_t thread;
    errand *r = new_errand(p, check);
    CHECK(r, ERROR_MEMORY, "no memory for a check");
    const int error = thread_start(&thread, do_errand, r);
    if (error != 0) {
        free_errand(r);
        return error_set(ERROR_MEMORY, "no thread for a check: %s", strerror(error));
    }
    if (!await_errand(r, p->options.patience)) {
        pthread_detach(thread);
        leave_errand(p, mine);
        return 0;
    }
    pthread_join(thread, NULL);
    *mine = r->found;
    free_errand(r);
    return 0;
}

/* ---- all checks on all ranks ---- */

static int run_check(const preflight *p, const preflight_check *check, finding *all)
{
    finding mine = {.value = NAN};
    const int status = check->alone ? run_alone(p, check, &mine) : check->run(p, &mine);
    TRY(comm_agree(p->ranks, status));
    TRY(comm_all_gather(p->ranks, &mine, sizeof mine, all));
    return preflight_judge(check, all, p->info->size);
}

/* The ranks with a fault fail, and the lowest of them speaks. */
static int tell_faults(const preflight *p, const finding *found)
{
    int faults = 0, status = 0;
    for (int i = 0; i < CHECKS * p->info->size; i++)
        faults += found[i].verdict == VERDICT_FAULT;
    for (int i = 0; i < CHECKS && status == 0; i++) {
        const finding *mine = &found[i * p->info->size + p->info->rank];
        if (mine->verdict == VERDICT_FAULT)
            status = error_set(ERROR_MISMATCH, "preflight: %s: %s%s%s (faults found: %d)", checks[i].name, mine->text,
                               mine->text[0] ? ": " : "", mine->problem, faults);
    }
    return comm_agree(p->ranks, status);
}

static int print_all(const preflight *p, const finding *found)
{
    if (p->info->rank != 0)
        return 0;
    if (p->options.json)
        return preflight_print_json(p, checks, CHECKS, found);
    preflight_print(p, checks, CHECKS, found);
    return 0;
}

static int check_all(preflight *p)
{
    finding *found = calloc((size_t)CHECKS * (size_t)p->info->size, sizeof *found);
    CHECK(found, ERROR_MEMORY, "no memory for the findings of %d ranks", p->info->size);
    int status = preflight_measure_network(p);
    for (int i = 0; i < CHECKS && status == 0; i++)
        status = run_check(p, &checks[i], &found[i * p->info->size]);
    if (status == 0)
        status = comm_agree(p->ranks, print_all(p, found));
    if (status == 0)
        status = tell_faults(p, found);
    free(found);
    return status;
}

static int find_places(preflight *p)
{
    preflight_place mine = {.leader = p->info->host_leader};
    p->places = calloc((size_t)p->info->size, sizeof *p->places);
    CHECK(p->places, ERROR_MEMORY, "no memory for the places of %d ranks", p->info->size);
    snprintf(mine.host, sizeof mine.host, "%s", p->info->host);
    TRY(comm_all_gather(p->ranks, &mine, sizeof mine, p->places));
    for (int rank = 0; rank < p->info->size; rank++)
        p->hosts += p->places[rank].leader == rank;
    return 0;
}

/* A device that does not open on some rank is a finding. Settings that make no sense end the preflight. */
static int open_device(preflight *p)
{
    const int status = session_open(&p->e, &p->config, p->log, p->ranks, DATA_NONE | WILL_TRAIN);
    p->has_device = status == 0;
    if (status == 0 || status == ERROR_SETTINGS || status == ERROR_COMM)
        return status;
    if (!comm_peer_failed(p->ranks))
        snprintf(p->device_problem, sizeof p->device_problem, "%s", error_message());
    session_close(&p->e);
    return 0;
}

int preflight_run(const settings *config, const preflight_options *options, logger *log, comm *ranks)
{
    preflight *p = calloc(1, sizeof *p);
    TRY(comm_agree(ranks, p ? 0 : error_set(ERROR_MEMORY, "no memory for the preflight")));
    *p = (preflight){.config = *config, .options = *options, .log = log, .ranks = ranks, .info = comm_describe(ranks)};
    int status = find_places(p);
    if (status == 0)
        status = open_device(p);
    if (status == 0)
        status = check_all(p);
    if (p->has_device)
        session_end(&p->e, status);
    if (comm_has_left_thread(ranks))
        return status; /* which still reads `p` */
    free(p->places);
    free(p);
    return status;
}

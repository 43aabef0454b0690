/* Owns the thread that writes checkpoints. Invariant: at most one is being written, and while it is the thread has the
 * snapshot. Threads: the main one calls; the other one only writes files, and sets `done` last of all. */
#include "train/checkpoint_writer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "train/kept_checkpoints.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = SETTING_TEXT_BYTES + 32, TICK_US = 2000 };

/* After a failure; less than what the ranks' watchdogs give the main thread (COMM_GRACE_SECONDS). */
static const double ending_seconds = 5;

int checkpoint_writer_open(checkpoint_writer *w)
{
    return comm_agree(w->e->ranks, w->e->info->rank == 0 ? snapshot_open(&w->state, w->e) : 0);
}

static void fill_point(resume_point *point, const char *path, const progress *at)
{
    *point = (resume_point){.epoch = at->epoch, .step = at->step};
    snprintf(point->path, sizeof point->path, "%s", path);
}

void checkpoint_writer_note(checkpoint_writer *w, const char *path, const progress *at)
{
    fill_point(&w->newest, path, at);
}

/* ---- the thread ---- */

static const char *path_in(const checkpoint_writer *w, const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", w->e->config.output.dir, name);
    return path;
}

/* A second name of last.h5; a file of its own where the file system has no hard links. */
static int keep(const checkpoint_writer *w, const char *last)
{
    const settings *c = &w->e->config;
    const kept_rule rule = {.count = c->output.keep, .hours = c->output.keep_hours};
    char path[KEPT_PATH_BYTES];
    if (rule.count == 0 && rule.hours == 0)
        return 0;
    kept_path(path, c->output.dir, w->state.at.steps_done);
    if (!kept_link(path, last))
        TRY(snapshot_write(&w->state, path, NULL));
    return kept_thin(c->output.dir, &rule);
}

static int write_files(const checkpoint_writer *w)
{
    char best[PATH_BYTES], last[PATH_BYTES], previous[PATH_BYTES];
    if (w->options & SAVE_IS_BEST)
        TRY(snapshot_write(&w->state, path_in(w, "best.h5", best), NULL));
    TRY(snapshot_write(&w->state, path_in(w, "last.h5", last),
                       w->options & SAVE_KEEPS_PREVIOUS ? path_in(w, "previous.h5", previous) : NULL));
    return keep(w, last);
}

static void *run(void *argument)
{
    checkpoint_writer *w = argument;
    w->status = write_files(w);
    w->message = error_save();
    atomic_store(&w->done, true);
    return NULL;
}

/* ---- rank 0's main thread ---- */

static int start(checkpoint_writer *w, const progress *at, unsigned options)
{
    TRY(snapshot_take(&w->state, at));
    w->options = options;
    atomic_store(&w->done, false);
    int error = thread_start(&w->thread, run, w);
    CHECK(error == 0, ERROR_MEMORY, "no thread to write a checkpoint: %s", strerror(error));
    w->under_way = true;
    return 0;
}

static int join(checkpoint_writer *w)
{
    pthread_join(w->thread, NULL);
    w->under_way = false;
    if (w->status < 0)
        error_restore(&w->message);
    return w->status;
}

/* A disk may hang: a peer's failure is heard of all the same. */
static int wait_for_thread(checkpoint_writer *w)
{
    while (w->under_way && !atomic_load(&w->done)) {
        TRY(comm_progress(w->e->ranks));
        clock_sleep_us(TICK_US);
    }
    return w->under_way ? join(w) : 0;
}

/* ---- every rank ---- */

int checkpoint_writer_settle(checkpoint_writer *w)
{
    if (!w->written.path[0])
        return 0;
    comm_enter(w->e->ranks, PHASE_CHECKPOINT);
    int status = comm_agree(w->e->ranks, wait_for_thread(w));
    if (status == 0)
        w->newest = w->written;
    w->saved |= status == 0;
    w->written.path[0] = '\0';
    return status;
}

int checkpoint_writer_save(checkpoint_writer *w, const progress *at, unsigned options)
{
    char last[PATH_BYTES];
    comm_enter(w->e->ranks, PHASE_CHECKPOINT);
    TRY(checkpoint_writer_settle(w));
    TRY(comm_agree(w->e->ranks, w->e->info->rank == 0 ? start(w, at, options) : 0));
    fill_point(&w->written, path_in(w, "last.h5", last), at);
    return 0;
}

bool checkpoint_writer_has_failed(const checkpoint_writer *w)
{
    return w->under_way && atomic_load(&w->done) && w->status < 0;
}

void checkpoint_writer_close(checkpoint_writer *w, int status)
{
    const bool goes_on = session_closes(w->e, status);
    const double begin = clock_seconds();
    while (w->under_way && !atomic_load(&w->done) && (goes_on || clock_seconds() - begin < ending_seconds))
        clock_sleep_us(TICK_US);
    if (w->under_way && !atomic_load(&w->done))
        return; /* the process is about to end, and the thread with it */
    if (w->under_way)
        pthread_join(w->thread, NULL);
    w->under_way = false;
    snapshot_close(&w->state);
}

/* Owns the threads that write shards. Invariant: a shard is written by one thread, from the plan alone; threads share
 * only the number of the next shard, counters, and the first failure. The caller's thread starts and ends them. */
#include "io/pack/plan.h"
#include "io/pack/prepare.h"

#include "base/error.h"
#include "base/thread.h"
#include "io/shard/shard_file.h"
#include "io/shard/shard_write.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct pack_job {
    const pack_plan *plan;
    int rank, ranks, threads;
    pthread_t *thread;
    atomic_int running;
    atomic_bool stopped;
    _Atomic int64_t next, images, shards, kept;
    _Atomic uint64_t bytes;
    pthread_mutex_t mutex; /* of the two below */
    int status;            /* the first failure */
    error_copy message;
};

/* A thread's own. */
typedef struct {
    pack_job *job;
    preparer preparer;
    byte_buffer buffer;
} worker;

/* Shards of both splits, in one row. */
typedef struct {
    int split;
    int32_t shard;
} shard_number;

static int write_image(worker *w, shard_writer *writer, int split, const pack_entry *entry)
{
    const pack_input *input = &w->job->plan->input;
    const char *name = pack_entry_name(input, entry);
    shard_image image = {.label = entry->label, .position = (uint64_t)(entry - input->entries[split])};
    const void *bytes;
    int status = input->read(input, split, entry, &w->buffer);
    if (status == 0)
        status = prepare_image(&w->preparer, name, &w->buffer, &image, &bytes);
    if (status == 0)
        status = shard_writer_add(writer, &image, name, bytes);
    if (status != ERROR_DATA)
        return status;
    if (w->job->plan->options.fail_on_bad)
        return error_prefix(status, "%s", name);
    return shard_writer_leave_out(writer, name);
}

static int write_images(worker *w, shard_writer *writer, shard_number n)
{
    const pack_plan *p = w->job->plan;
    for (int64_t i = p->first[n.split][n.shard]; i < p->first[n.split][n.shard + 1]; i++) {
        const pack_entry *entry = plan_entry(p, n.split, i);
        if (w->job->stopped)
            return error_set(ERROR_STOPPED, "stopped");
        TRY(write_image(w, writer, n.split, entry));
        w->job->images++;
        w->job->bytes += entry->size;
    }
    return 0;
}

static int write_shard(worker *w, shard_number n)
{
    char path[SHARD_PATH_BYTES], name[SHARD_FILE_BYTES];
    const pack_plan *p = w->job->plan;
    shard_writer *writer;
    const shard_identity identity = {.plan = p->id,
                                     .split = n.split,
                                     .shard = n.shard,
                                     .shards = p->shards[n.split],
                                     .classes = p->input.classes,
                                     .class_ids = p->input.class_ids,
                                     .class_names = p->input.class_names};
    TRY(shard_path_join(path, p->out, shard_file_name(n.split, n.shard, name)));
    TRY(shard_writer_create(&writer, path, &identity));
    int status = write_images(w, writer, n);
    if (status == 0)
        status = shard_writer_commit(&writer);
    shard_writer_abandon(&writer);
    return status;
}

/* A whole shard of this plan is there from an earlier start. */
static bool is_there(const pack_job *job, shard_number n)
{
    const manifest m = plan_manifest(job->plan);
    shard_file file;
    const bool there = shard_file_open_unlisted(&file, &m, job->plan->out, n.split, n.shard) == 0;
    shard_file_close(&file);
    return there;
}

static int do_shard(worker *w, shard_number n)
{
    pack_job *job = w->job;
    const pack_plan *p = job->plan;
    if (!is_there(job, n)) {
        TRY(write_shard(w, n));
    } else {
        job->images += p->first[n.split][n.shard + 1] - p->first[n.split][n.shard];
        job->kept++;
    }
    job->shards++;
    return 0;
}

/* This rank's next shard; false at the end. */
static bool take_shard(pack_job *job, shard_number *n)
{
    const int64_t number = job->rank + job->next++ * job->ranks, training = job->plan->shards[0];
    *n = (shard_number){.split = number >= training,
                        .shard = (int32_t)(number >= training ? number - training : number)};
    return number < training + job->plan->shards[1];
}

static int work(worker *w)
{
    shard_number n;
    while (!w->job->stopped && take_shard(w->job, &n))
        TRY(do_shard(w, n));
    return 0;
}

static void keep_failure(pack_job *job, int status)
{
    pthread_mutex_lock(&job->mutex);
    if (job->status == 0 && !job->stopped) {
        job->status = status;
        job->message = error_save();
    }
    job->stopped = true;
    pthread_mutex_unlock(&job->mutex);
}

static void *run(void *context)
{
    worker w = {.job = context};
    int status = preparer_open(&w.preparer, w.job->plan->options.max_side, w.job->plan->options.quality);
    if (status == 0)
        status = work(&w);
    if (status < 0)
        keep_failure(w.job, status);
    preparer_close(&w.preparer);
    free(w.buffer.bytes);
    w.job->running--;
    return NULL;
}

static int start_threads(pack_job *job, int threads)
{
    job->thread = calloc((size_t)threads, sizeof *job->thread);
    CHECK(job->thread, ERROR_MEMORY, "no memory for %d threads", threads);
    for (; job->threads < threads; job->threads++) {
        job->running++;
        int error = thread_start(&job->thread[job->threads], run, job);
        if (error != 0) {
            job->running--;
            return error_set(ERROR_MEMORY, "cannot start thread %d of %d: %s", job->threads + 1, threads,
                             strerror(error));
        }
    }
    return 0;
}

int pack_job_start(pack_job **job, const pack_plan *plan, int rank, int ranks, int threads)
{
    pack_job *j = calloc(1, sizeof *j);
    *job = j;
    CHECK(j, ERROR_MEMORY, "no memory to pack");
    j->plan = plan;
    j->rank = rank;
    j->ranks = ranks;
    pthread_mutex_init(&j->mutex, NULL);
    int status = start_threads(j, threads);
    if (status < 0) {
        error_copy kept = error_save();
        pack_job_end(job, true);
        error_restore(&kept);
    }
    return status;
}

pack_progress pack_job_progress(const pack_job *job)
{
    return (pack_progress){.images = job->images,
                           .shards = job->shards,
                           .kept = job->kept,
                           .bytes = job->bytes,
                           .is_over = job->running == 0,
                           .has_failed = job->stopped};
}

int pack_job_end(pack_job **job, bool stop)
{
    pack_job *j = *job;
    *job = NULL;
    if (!j)
        return 0;
    if (stop)
        j->stopped = true;
    for (int i = 0; i < j->threads; i++)
        pthread_join(j->thread[i], NULL);
    const int status = j->status;
    if (status < 0)
        error_restore(&j->message);
    pthread_mutex_destroy(&j->mutex);
    free(j->thread);
    free(j);
    return status;
}

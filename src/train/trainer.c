/* Owns the loop over epochs and steps.
 * Invariant: after each step every rank holds the same weights, momentum and running statistics, so that rank 0's
 * checkpoint is everybody's. One thread. */
#include "train/trainer.h"
#include "base/error.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/report.h"
#include "train/schedule.h"
#include "train/stop.h"
#include "train/stop_file.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const double live_seconds = 0.5;
enum { STOP_TEXT_BYTES = 512 };

typedef struct {
    experiment *e;
    output_folder *output;
    feed *batches, *test_batches;
    json_lines json;
    progress at;
    int64_t steps;      /* of an epoch */
    double line_images; /* of this rank, since the last line */
    int64_t skipped;    /* steps skipped that were reported */
    double line_start, epoch_start, live_time;
    double images_before; /* of this epoch, trained on before this process resumed it */
    comm_request vote;    /* on whether to stop; under way where `votes` */
    int64_t stop_votes;
    bool votes, stops;
    bool trained; /* in this process */
} trainer;

/* Lines that are there already may be of steps that a kill has undone: a record says where the run goes on. */
static int open_metrics(trainer *t)
{
    char path[SETTING_TEXT_BYTES + 32];
    const char *from = output_folder_checkpoint(t->output);
    if (t->e->info->rank != 0)
        return 0;
    TRY(stop_file_remove(t->e->config.output.dir));
    snprintf(path, sizeof path, "%s/metrics.jsonl", t->e->config.output.dir);
    TRY(json_open(&t->json, path));
    return t->json.goes_on ? report_resume(&t->json, &t->at, from) : 0;
}

static int resume(trainer *t)
{
    const char *path = output_folder_checkpoint(t->output);
    t->at.best_top1 = -1;
    if (!path[0])
        return 0;
    TRY(checkpoint_load(t->e, path, &t->at));
    log_info(t->e->log, "resumed from %s: epoch %lld, step %lld", path, (long long)t->at.epoch + 1,
             (long long)t->at.step);
    return 0;
}

static int open_all(trainer *t)
{
    experiment *e = t->e;
    loss_scaling scaling;
    TRY(resume(t));
    TRY(output_folder_clear(t->output));
    TRY(comm_agree(e->ranks, open_metrics(t)));
    TRY(metrics_reset(&e->tensors));
    TRY(loss_scaling_read(&scaling, &e->tensors));
    t->skipped = scaling.skipped;
    TRY(feed_open(&t->batches, e, true));
    return feed_open(&t->test_batches, e, false);
}

/* One part of a batch: all of it, unless gradients are accumulated. */
static int run_part(trainer *t, double lr)
{
    experiment *e = t->e;
    feed_batch batch;
    TRY(feed_next(t->batches, &batch));
    TRY(program_write(batch.step, &e->run, "lr", &lr, sizeof lr));
    TRY(program_run(&e->run, batch.step));
    t->line_images += batch.images;
    return 0;
}

static int run_step(trainer *t, double *lr)
{
    *lr = schedule_lr(&t->e->config, t->at.epoch, t->at.step, t->steps);
    int64_t parts = experiment_parts(t->e, t->at.step);
    for (int64_t part = 0; part < parts; part++)
        TRY(run_part(t, *lr));
    t->trained = true;
    t->at.step++;
    t->at.steps_done++;
    return 0;
}

static double seconds_left(const trainer *t, double images_per_second)
{
    const settings *c = &t->e->config;
    int64_t left = (c->train.epochs - t->at.epoch) * t->steps - t->at.step;
    if (c->train.max_steps && c->train.max_steps - t->at.steps_done < left)
        left = c->train.max_steps - t->at.steps_done;
    return images_per_second > 0 ? (double)left * t->e->batch / images_per_second : 0;
}

/* `sums` may be those of this rank alone, for a line that is only looked at; `ranks` is how many it stands for. */
static step_report make_report(const trainer *t, const metrics *sums, double lr, int ranks)
{
    step_report r = {.at = &t->at, .steps = t->steps, .lr = lr, .mean = metrics_mean(sums)};
    double seconds = run_clock() - t->line_start;
    r.images_per_second = seconds > 0 ? sums->images * ranks / seconds : 0;
    r.seconds_left = seconds_left(t, r.images_per_second);
    return r;
}

/* Every log.every steps the ranks' sums come together; that is also where a loss that is no number is noticed. */
static int finish_line(trainer *t, double lr)
{
    experiment *e = t->e;
    metrics sums;
    TRY(runtime_synchronize(&e->run));
    TRY(metrics_read(&sums, &e->tensors, t->line_images));
    TRY(metrics_reset(&e->tensors));
    TRY(metrics_reduce(&sums, e->ranks));
    step_report r = make_report(t, &sums, lr, 1);
    if (!isfinite(r.mean.total)) /* the same on all ranks: one tells */
        return comm_agree(
            e->ranks,
            error_set(ERROR_DATA,
                      "the loss is no longer finite in epoch %lld before step %lld; a lower train.lr may help",
                      (long long)t->at.epoch + 1, (long long)t->at.step));
    metrics_add(&t->at.epoch_sums, &sums);
    t->line_images = 0;
    TRY(loss_scaling_read(&r.scaling, &e->tensors));
    if (r.scaling.skipped > t->skipped)
        report_skipped(e, &r.scaling, r.scaling.skipped - t->skipped);
    t->skipped = r.scaling.skipped;
    TRY(report_step(e, &t->json, &r));
    t->line_start = run_clock();
    return 0;
}

/* Only where the device has done a step when the host goes on: elsewhere a look at its sums would wait for all that is
 * queued. A few times a second. */
static int show_live(trainer *t, double lr)
{
    metrics sums;
    if (run_clock() - t->live_time < live_seconds)
        return 0;
    TRY(runtime_synchronize(&t->e->run));
    TRY(metrics_read(&sums, &t->e->tensors, t->line_images));
    step_report r = make_report(t, &sums, lr, t->e->info->size);
    report_live(t->e, &r);
    t->live_time = run_clock();
    return 0;
}

static int count_votes(trainer *t)
{
    if (!t->votes)
        return 0;
    t->votes = false;
    TRY(comm_wait(t->e->ranks, &t->vote));
    t->stops = t->stop_votes > 0;
    return 0;
}

/* All ranks stop after the same step. A step's vote is counted after the next one: to wait for it at once would let no
 * rank's host run ahead of the others'. */
static int vote_on_stop(trainer *t)
{
    TRY(count_votes(t));
    t->stop_votes = stop_signal() != 0;
    t->votes = true;
    return comm_all_reduce_start(t->e->ranks, &t->stop_votes, 1, COMM_I64, &t->vote);
}

static bool is_last_step(const trainer *t)
{
    int64_t limit = t->e->config.train.max_steps;
    return limit && t->at.steps_done >= limit;
}

static int run_epoch_steps(trainer *t)
{
    const settings *c = &t->e->config;
    int64_t first_part = t->at.step * c->train.accumulate;
    TRY(comm_agree(t->e->ranks, feed_seek(t->batches, t->at.epoch, first_part)));
    t->epoch_start = t->line_start = run_clock();
    t->images_before = t->at.epoch_sums.images;
    while (t->at.step < t->steps && !is_last_step(t) && !t->stops) {
        double lr = 0;
        TRY(run_step(t, &lr));
        TRY(vote_on_stop(t));
        bool ends = t->at.step == t->steps || is_last_step(t);
        bool saves = t->stops || (c->output.checkpoint_every && t->at.steps_done % c->output.checkpoint_every == 0);
        if (t->at.step % c->log.every == 0 || saves || ends)
            TRY(finish_line(t, lr));
        else if (t->e->log->terminal && t->e->device->ops->host_memory)
            TRY(show_live(t, lr));
        if ((saves || is_last_step(t)) && t->at.step < t->steps)
            TRY(checkpoint_save(t->e, &t->at, "last.h5", true));
    }
    return 0;
}

static int evaluate_now(trainer *t, metrics *mean)
{
    bool averaged = t->e->config.eval.ema;
    if (averaged)
        TRY(store_swap_averages(&t->e->tensors));
    TRY(evaluate(t->e, t->test_batches, mean));
    return averaged ? store_swap_averages(&t->e->tensors) : 0;
}

static int finish_epoch(trainer *t)
{
    experiment *e = t->e;
    const settings *c = &e->config;
    metrics train_mean = metrics_mean(&t->at.epoch_sums), test_mean;
    double seconds = run_clock() - t->epoch_start;
    bool last = t->at.epoch + 1 == c->train.epochs || is_last_step(t);
    bool evaluates = last || (c->eval.every && (t->at.epoch + 1) % c->eval.every == 0);
    if (evaluates)
        TRY(evaluate_now(t, &test_mean));
    TRY(report_epoch(e, &t->json, &t->at, &train_mean, evaluates ? &test_mean : NULL, seconds,
                     (train_mean.images - t->images_before) / seconds));
    bool best = evaluates && test_mean.top1[0] > t->at.best_top1;
    if (best)
        t->at.best_top1 = test_mean.top1[0];
    t->at.epoch++;
    t->at.step = 0;
    t->at.epoch_sums = (metrics){0};
    if (best)
        TRY(checkpoint_save(e, &t->at, "best.h5", false));
    return checkpoint_save(e, &t->at, "last.h5", true);
}

static void say_where(const trainer *t)
{
    char best[SETTING_TEXT_BYTES + 16];
    const char *dir = t->e->config.output.dir;
    snprintf(best, sizeof best, "%s/best.h5", dir);
    if (t->at.best_top1 >= 0) /* it may have been reached in another folder, before a resume from there */
        log_info(t->e->log, "best teacher top-1 %.2f%%: %s", 100 * t->at.best_top1,
                 access(best, F_OK) == 0 ? best : "in the run that was resumed");
    log_info(t->e->log, "last checkpoint %s/last.h5, metrics %s/metrics.jsonl", dir, dir);
}

static bool is_finished(const trainer *t)
{
    return t->at.epoch >= t->e->config.train.epochs || is_last_step(t);
}

/* A signal may just have come, while the run was being opened. */
static int vote_before_start(trainer *t)
{
    stop_heed();
    TRY(vote_on_stop(t));
    return count_votes(t);
}

/* Who got the signal says so. What was trained has been saved. */
static int end_stopped(trainer *t)
{
    experiment *e = t->e;
    const char *name = stop_signal_name(stop_signal());
    int status = 0;
    if (stop_signal() != 0 && t->trained)
        status = error_set(ERROR_STOPPED, "stopped by %s in epoch %lld after step %lld; --resume auto goes on", name,
                           (long long)t->at.epoch + 1, (long long)t->at.step);
    else if (stop_signal() != 0)
        status = error_set(ERROR_STOPPED, "stopped by %s before the first step; start it again as it was", name);
    status = comm_agree(e->ranks, status);
    if (status == ERROR_STOPPED && e->info->rank == 0) {
        char text[STOP_TEXT_BYTES];
        snprintf(text, sizeof text, "%s", error_message());
        if (stop_file_write(e->config.output.dir, text) < 0)
            log_warning(e->log, "%s", error_message());
        error_set(status, "%s", text);
    }
    return status;
}

static int run_epochs(trainer *t)
{
    TRY(vote_before_start(t));
    while (!is_finished(t) && !t->stops) {
        TRY(run_epoch_steps(t));
        if (t->at.step == t->steps)
            TRY(finish_epoch(t));
    }
    if (!is_finished(t))
        return end_stopped(t);
    TRY(count_votes(t)); /* before the communicator goes */
    say_where(t);
    return 0;
}

int train(experiment *e, output_folder *output)
{
    trainer t = {.e = e, .output = output, .steps = experiment_steps(e)};
    log_is_note(e->log);
    int status = open_all(&t);
    if (status == 0)
        status = run_epochs(&t);
    if (experiment_closes(e, status)) {
        feed_close(&t.batches);
        feed_close(&t.test_batches);
    }
    int closed = t.json.file ? json_close(&t.json) : 0;
    return status < 0 ? status : closed;
}

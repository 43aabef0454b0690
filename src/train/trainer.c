/* Owns the loop over epochs and steps.
 * Invariant: after each step every rank holds the same weights, momentum and running statistics, so that rank 0's
 * checkpoint is everybody's. One thread. */
#include "train/trainer.h"
#include "base/clock.h"
#include "base/error.h"
#include "train/bad_step.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/rehearsal.h"
#include "train/report.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "train/stop_file.h"
#include "train/stop_vote.h"
#include "train/stragglers.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const double live_seconds = 0.5, much_data_wait = 0.1;

typedef struct {
    session *e;
    output_folder *output;
    feed *batches, *test_batches;
    json_lines json;
    progress at;
    int64_t steps;      /* of an epoch */
    double line_images; /* of this rank, since the last line */
    int64_t skipped;    /* steps skipped that were reported */
    double line_start, epoch_start, live_time;
    double waited; /* for images, before the last line */
    bool said_data_wait;
    double epoch_seconds; /* of training in it, in this process */
    double images_before; /* of this epoch, trained on before this process resumed it */
    stragglers slow;
    rehearsal fault;
    stop_vote vote;
    bool saved; /* in this process: there is something to resume */
    resume_point from;
} trainer;

/* Notes that the checkpoint `path` is of this place. */
static void note_checkpoint(trainer *t, const char *path)
{
    t->from = (resume_point){.epoch = t->at.epoch, .step = t->at.step};
    snprintf(t->from.path, sizeof t->from.path, "%s", path);
}

/* After a failure that all ranks share, since their weights and losses are the same. */
static int say_diverged(const trainer *t, int status, int64_t steps_done)
{
    return status == ERROR_DATA ? bad_step_say_again(status, t->e, &t->from, steps_done) : status;
}

static done_step step_done(const trainer *t, double lr)
{
    return (done_step){.e = t->e, .batches = t->batches, .at = &t->at, .lr = lr};
}

/* Saves last.h5, where a resume goes on. */
static int save_last(trainer *t, bool keep_previous)
{
    char path[SETTING_TEXT_BYTES + 16];
    int status = checkpoint_save(t->e, &t->at, "last.h5", keep_previous);
    TRY(say_diverged(t, status, t->at.steps_done));
    t->saved = true;
    snprintf(path, sizeof path, "%s/last.h5", t->e->config.output.dir);
    note_checkpoint(t, path);
    return 0;
}

/* Lines that are there already may be of steps that a kill has undone: a record says where the run goes on. */
static int open_metrics(trainer *t)
{
    char path[SETTING_TEXT_BYTES + 32];
    const char *from = output_folder_checkpoint(t->output);
    if (t->e->info->rank != 0)
        return 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", t->e->config.output.dir);
    TRY(json_open(&t->json, path));
    return t->json.goes_on ? report_resume(&t->json, &t->at, from) : 0;
}

static int check_step(const trainer *t, const char *path)
{
    CHECK(t->at.step <= t->steps, ERROR_FILE,
          "%s: the file is damaged, or of a training on more images: step is %lld, expected 0 to %lld", path,
          (long long)t->at.step, (long long)t->steps);
    return 0;
}

static int resume(trainer *t)
{
    const char *path = output_folder_checkpoint(t->output);
    t->at.evaluated_at = -1;
    t->at.best_top1 = -1;
    t->epoch_start = clock_seconds();
    if (!path[0])
        return 0;
    TRY(checkpoint_load(t->e, path, &t->at));
    TRY(comm_agree(t->e->ranks, check_step(t, path)));
    note_checkpoint(t, path);
    t->images_before = t->at.epoch_sums.images;
    log_info(t->e->log, "resumed from %s: epoch %lld, step %lld", path, (long long)t->at.epoch + 1,
             (long long)t->at.step);
    return 0;
}

static int open_all(trainer *t)
{
    session *e = t->e;
    loss_scaling scaling;
    TRY(resume(t));
    TRY(output_folder_clear(t->output));
    TRY(comm_agree(e->ranks, open_metrics(t)));
    TRY(metrics_reset(&e->tensors));
    TRY(loss_scaling_read(&scaling, &e->tensors));
    t->skipped = scaling.skipped;
    if (!output_folder_checkpoint(t->output)[0])
        rehearsal_start(&t->fault, e, t->steps);
    TRY(feed_open(&t->batches, e, true));
    return feed_open(&t->test_batches, e, false);
}

static int run_micro_batch(trainer *t, double lr)
{
    session *e = t->e;
    feed_batch batch;
    comm_enter(e->ranks, PHASE_DATA);
    TRY(feed_next(t->batches, &batch));
    comm_enter(e->ranks, PHASE_COMPUTE);
    TRY(program_write(batch.step, &e->run, "lr", &lr, sizeof lr));
    TRY(program_run(&e->run, batch.step));
    t->line_images += batch.images;
    return 0;
}

static int run_step(trainer *t, double *lr)
{
    *lr = schedule_lr(&t->e->config, t->at.epoch, t->at.step, t->steps);
    comm_set_step(t->e->ranks, t->at.epoch + 1, t->at.step + 1);
    int32_t micro_batches = batch_plan_step_micro_batches(&t->e->train_plan, t->at.step);
    for (int32_t i = 0; i < micro_batches; i++)
        TRY(run_micro_batch(t, *lr));
    t->at.step++;
    t->at.steps_done++;
    const done_step done = step_done(t, *lr);
    return t->e->config.run.check_finite ? say_diverged(t, bad_step_search(&done), t->at.steps_done) : 0;
}

static double seconds_left(const trainer *t, double images_per_second)
{
    const settings *c = &t->e->config;
    int64_t left = (c->train.epochs - t->at.epoch) * t->steps - t->at.step;
    if (c->train.max_steps && c->train.max_steps - t->at.steps_done < left)
        left = c->train.max_steps - t->at.steps_done;
    return images_per_second > 0 ? (double)left * t->e->train_plan.options.batch / images_per_second : 0;
}

/* What kept the ranks from computing since the last line: images that were not there, sums over the ranks. */
static int collect_waits(trainer *t, step_report *r)
{
    exposed_time exposed;
    TRY(runtime_exposed(&t->e->run, &exposed));
    const double seconds = clock_seconds() - t->line_start;
    const loader_report images = feed_describe(t->batches);
    double sums[] = {images.waited - t->waited, exposed.waiting + exposed.advancing, (double)images.bad_images};
    t->waited = images.waited;
    TRY(comm_all_reduce(t->e->ranks, sums, sizeof sums / sizeof sums[0], COMM_F64));
    r->data_wait = seconds > 0 ? sums[0] / seconds / t->e->info->size : 0;
    r->exposed = seconds > 0 ? sums[1] / seconds / t->e->info->size : 0;
    r->bad_images = (int64_t)sums[2];
    return 0;
}

/* Once is enough. The first steps of a process wait for the first images in any case. */
static void advise_on_data(trainer *t, const step_report *r)
{
    const bool first_line = t->at.step <= t->e->config.log.every;
    if (r->data_wait < much_data_wait || t->said_data_wait || first_line)
        return;
    report_data_wait(t->e, r->data_wait);
    t->said_data_wait = true;
}

/* `sums` may be those of this rank alone, for a line that is only looked at; `ranks` is how many it stands for. */
static step_report make_report(const trainer *t, const metrics *sums, double lr, int ranks)
{
    step_report r = {.at = &t->at, .steps = t->steps, .lr = lr, .mean = metrics_mean(sums)};
    double seconds = clock_seconds() - t->line_start;
    r.images_per_second = seconds > 0 ? sums->images * ranks / seconds : 0;
    r.seconds_left = seconds_left(t, r.images_per_second);
    return r;
}

/* What went wrong since the last line, if anything did. */
static int check_line(const trainer *t, const step_report *r)
{
    const done_step done = step_done(t, r->lr);
    int64_t steps_done = t->at.steps_done;
    int status =
        isfinite(r->mean.total) ? bad_step_check_scale(&done, &r->scaling) : bad_step_since_line(&done, &steps_done);
    return say_diverged(t, status, steps_done);
}

/* Every log.every steps the ranks' sums come together; that is also where a loss that is no number is noticed. */
static int finish_line(trainer *t, double lr)
{
    session *e = t->e;
    metrics sums;
    TRY(runtime_synchronize(&e->run));
    TRY(metrics_read(&sums, &e->tensors, t->line_images));
    TRY(metrics_reduce(&sums, e->ranks));
    step_report r = make_report(t, &sums, lr, 1);
    TRY(loss_scaling_read(&r.scaling, &e->tensors));
    TRY(check_line(t, &r));
    TRY(metrics_reset(&e->tensors));
    metrics_add(&t->at.epoch_sums, &sums);
    t->line_images = 0;
    if (r.scaling.skipped > t->skipped)
        report_skipped(e, &r.scaling, r.scaling.skipped - t->skipped);
    t->skipped = r.scaling.skipped;
    TRY(collect_waits(t, &r));
    TRY(stragglers_look(&t->slow, e, r.exposed));
    TRY(report_step(e, &t->json, &r));
    advise_on_data(t, &r);
    t->line_start = clock_seconds();
    return 0;
}

/* Only where the device has done a step when the host goes on: elsewhere a look at its sums would wait for all that is
 * queued. A few times a second. */
static int show_live(trainer *t, double lr)
{
    metrics sums;
    if (clock_seconds() - t->live_time < live_seconds)
        return 0;
    TRY(runtime_synchronize(&t->e->run));
    TRY(metrics_read(&sums, &t->e->tensors, t->line_images));
    step_report r = make_report(t, &sums, lr, t->e->info->size);
    report_live(t->e, &r);
    t->live_time = clock_seconds();
    return 0;
}

static bool is_last_step(const trainer *t)
{
    int64_t limit = t->e->config.train.max_steps;
    return limit && t->at.steps_done >= limit;
}

static int run_epoch_steps(trainer *t)
{
    const settings *c = &t->e->config;
    TRY(comm_agree(t->e->ranks, feed_seek(t->batches, t->at.epoch, t->at.step * c->train.accumulate)));
    t->epoch_start = t->line_start = clock_seconds();
    t->images_before = t->at.epoch_sums.images;
    while (t->at.step < t->steps && !is_last_step(t) && !t->vote.stops) {
        double lr = 0;
        TRY(run_step(t, &lr));
        TRY(stop_vote_start(&t->vote));
        bool ends = t->at.step == t->steps || is_last_step(t);
        bool saves =
            t->vote.stops || (c->output.checkpoint_every && t->at.steps_done % c->output.checkpoint_every == 0);
        if (t->at.step % c->log.every == 0 || saves || ends)
            TRY(finish_line(t, lr));
        else if (t->e->log->terminal && t->e->device->ops->host_memory)
            TRY(show_live(t, lr));
        if (saves && !ends)
            TRY(save_last(t, true));
    }
    return 0;
}

/* Whether training ends where it stands. */
static bool is_at_end(const trainer *t)
{
    int64_t epochs = t->at.epoch + (t->at.step == t->steps);
    return epochs >= t->e->config.train.epochs || is_last_step(t);
}

/* Whether the weights are to be evaluated before training goes on or ends, and have not been yet. */
static bool wants_evaluation(const trainer *t)
{
    int64_t every = t->e->config.eval.every;
    bool in_turn = t->at.step == t->steps && every && (t->at.epoch + 1) % every == 0;
    return (in_turn || is_at_end(t)) && t->at.evaluated_at != t->at.steps_done;
}

/* The epoch that training is in or, between two, that has ended. */
static int64_t ended_epoch(const trainer *t)
{
    return t->at.step > 0 ? t->at.epoch : t->at.epoch - 1;
}

static int evaluate_now(trainer *t, metrics *mean)
{
    bool with_ema = t->e->config.eval.ema;
    if (with_ema)
        TRY(store_swap_ema(&t->e->tensors));
    TRY(evaluate(t->e, t->test_batches, mean));
    return with_ema ? store_swap_ema(&t->e->tensors) : 0;
}

static int report(trainer *t, const metrics *test)
{
    metrics train = metrics_mean(&t->at.epoch_sums);
    epoch_report r = {.epoch = ended_epoch(t),
                      .step = t->at.step > 0 ? t->at.step : t->steps,
                      .steps = t->steps,
                      .steps_done = t->at.steps_done,
                      .test = test};
    double images = train.images - t->images_before;
    if (train.images > 0)
        r.train = &train;
    if (images > 0) {
        r.seconds = t->epoch_seconds;
        r.images_per_second = images / t->epoch_seconds;
    }
    return report_epoch(t->e, &t->json, &r);
}

/* Takes note of an evaluation; whether it is the best one. One whose loss is no number is not. */
static bool take_evaluation(trainer *t, const metrics *test)
{
    t->at.evaluated_at = t->at.steps_done;
    bool best = isfinite(test->cross_entropy[0]) && test->top1[0] > t->at.best_top1;
    if (best)
        t->at.best_top1 = test->top1[0];
    return best;
}

/* At the end of an epoch or of training. What was trained is safe before the evaluation, which may be long: a resume
 * from there makes it. */
static int finish_epoch(trainer *t)
{
    metrics test;
    bool evaluates = wants_evaluation(t), best = false;
    t->epoch_seconds = clock_seconds() - t->epoch_start;
    TRY(stop_vote_count(&t->vote));
    if (evaluates) {
        TRY(save_last(t, true));
        TRY(evaluate_now(t, &test));
        best = take_evaluation(t, &test);
    }
    TRY(report(t, evaluates ? &test : NULL));
    if (t->at.step == t->steps) {
        t->at.epoch++;
        t->at.step = 0;
        t->at.epoch_sums = (metrics){0};
    }
    if (best)
        TRY(checkpoint_save(t->e, &t->at, "best.h5", false));
    return save_last(t, !evaluates);
}

static void log_paths(const trainer *t)
{
    char best[SETTING_TEXT_BYTES + 16];
    const char *dir = t->e->config.output.dir;
    snprintf(best, sizeof best, "%s/best.h5", dir);
    if (t->at.best_top1 >= 0) /* it may have been reached in another folder, before a resume from there */
        log_info(t->e->log, "best teacher top-1 %.2f%%: %s", 100 * t->at.best_top1,
                 access(best, F_OK) == 0 ? best : "in the run that was resumed");
    if (t->saved)
        log_info(t->e->log, "last checkpoint %s/last.h5, metrics %s/metrics.jsonl", dir, dir);
    else
        log_info(t->e->log, "nothing was left to train: %s, of epoch %lld, step %lld", t->from.path,
                 (long long)t->from.epoch + 1, (long long)t->from.step);
}

static bool is_finished(const trainer *t)
{
    return is_at_end(t) && t->at.step < t->steps && !wants_evaluation(t);
}

/* A signal may just have come, while the run was being opened. */
static int vote_before_start(trainer *t)
{
    signals_heed();
    TRY(stop_vote_start(&t->vote));
    return stop_vote_count(&t->vote);
}

/* Who got the signal says so. What was trained has been saved. */
static int end_stopped(trainer *t)
{
    session *e = t->e;
    const char *name = signals_name(signals_received());
    int status = 0;
    if (signals_received() != 0 && t->saved)
        status = error_set(ERROR_STOPPED, "stopped by %s in epoch %lld after step %lld; --resume auto goes on", name,
                           (long long)t->at.epoch + 1, (long long)t->at.step);
    else if (signals_received() != 0)
        status = error_set(ERROR_STOPPED, "stopped by %s before the first step; start it again as it was", name);
    status = comm_agree(e->ranks, status);
    if (status == ERROR_STOPPED && e->info->rank == 0) {
        const error_copy kept = error_save();
        if (stop_file_write(e->config.output.dir, kept.text) < 0)
            log_warning(e->log, "%s", error_message());
        error_restore(&kept);
    }
    return status;
}

static int run_epochs(trainer *t)
{
    TRY(vote_before_start(t));
    while (!is_finished(t) && !t->vote.stops) {
        int status = 0;
        if (!is_at_end(t) && t->at.step < t->steps)
            TRY(run_epoch_steps(t));
        if (t->at.step == t->steps || is_at_end(t))
            status = finish_epoch(t);
        if (status == ERROR_STOPPED)
            return end_stopped(t);
        TRY(status);
    }
    if (!is_finished(t))
        return end_stopped(t);
    TRY(stop_vote_count(&t->vote));
    log_paths(t);
    return 0;
}

int train(session *e, output_folder *output)
{
    trainer t = {.e = e, .output = output, .steps = e->train_plan.steps, .vote = {.ranks = e->ranks}};
    log_is_note(e->log);
    int status = open_all(&t);
    if (status == 0)
        status = run_epochs(&t);
    if (session_closes(e, status)) {
        feed_close(&t.batches);
        feed_close(&t.test_batches);
    }
    comm_enter(e->ranks, PHASE_NONE);
    comm_observe(e->ranks, NULL, NULL);
    int closed = t.json.file ? json_close(&t.json) : 0;
    return status < 0 ? status : closed;
}

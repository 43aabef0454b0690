/* Owns the words of a run. Only rank 0's words come out (base/log.h). One thread. */
#include "train/report.h"
#include "base/error.h"
#include "run/memory_report.h"
#include "session/threads.h"

#include <math.h>
#include <string.h>

static const double shown_data_wait = 0.02;

static const char *input_text(const step_input *input)
{
    static const char *const texts[] = {[INPUT_REAL] = "made by the host",
                                        [INPUT_BYTES] = "copied to the device batch by batch",
                                        [INPUT_RESIDENT] = "held by the device"};
    return texts[input->kind];
}

static void report_cores(const session *e)
{
    char cores[THREADS_TEXT_BYTES], variables[THREADS_TEXT_BYTES];
    threads_cores_text(cores);
    threads_openmp_text(variables);
    log_info(e->log, "  cores    %d thread%s on %s%s%s", e->threads, e->threads == 1 ? "" : "s", cores,
             variables[0] ? "; OpenMP: " : "", variables);
    if (!e->near_device)
        log_warning(e->log,
                    "this rank may use no core near its GPU: batches cross the machine; bind ranks to the cores "
                    "beside their GPUs, or not at all (mpirun --bind-to none)");
}

static void size_text(const session *e, char *text, size_t bytes)
{
    const image_options *o = &e->images;
    int used = o->sizes.first == o->sizes.last ? snprintf(text, bytes, "%dx%d", o->sizes.last, o->sizes.last)
                                               : snprintf(text, bytes, "%dx%d to %dx%d", o->sizes.first, o->sizes.first,
                                                          o->sizes.last, o->sizes.last);
    if (o->eval_size != o->sizes.last)
        snprintf(text + used, bytes - (size_t)used, ", evaluated at %dx%d", o->eval_size, o->eval_size);
}

void report_banner(session *e)
{
    const settings *c = &e->config;
    logger *log = e->log;
    char size[64];
    size_text(e, size, sizeof size);
    log_info(log, "teskd %s: %s, %s, %d classes", TESKD_VERSION, e->step.model.network->name,
             model_has_students(&e->step.model) ? "teacher and students" : "plain backbone", e->step.model.classes);
    log_info(log, "  data     %s %s: %lld training and %lld test images of %s, %s%s", e->images.source->title,
             c->data.path, (long long)e->train_images, (long long)e->test_images, size, input_text(&e->train_input),
             c->data.augment ? ", random crop and flip" : "");
    log_info(log, "  steps    %lld an epoch of %d images, %lld epochs, seed %lld", (long long)e->train_plan.steps,
             (int)c->train.batch, (long long)c->train.epochs, (long long)c->train.seed);
    log_info(log, "  ranks    %d (%d on %s), %s%s", e->info->size, e->info->local_size, e->info->host, e->info->library,
             e->info->size > 1 ? c->run.sync_bn ? ", synchronised BN" : ", BN of each rank's own" : "");
    log_info(log, "  device   %s", e->device->ops->description(e->device));
    report_cores(e);
    if (e->images.source->side == SIZE_VARIES)
        log_info(log, "  loader   %d thread%s per rank", e->loader_threads, e->loader_threads == 1 ? "" : "s");
    char memory[256];
    memory_plan_text(&e->run, memory, sizeof memory);
    log_info(log, "  memory   %s", memory);
    log_info(log, "  output   %s", c->output.dir);
}

static void time_left(double seconds, char text[32])
{
    long long s = seconds < 1e9 ? (long long)seconds : 0;
    snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

static void step_line(const session *e, const step_report *r, char *line, size_t bytes)
{
    char left[32], wait[32] = "", exposed[32] = "";
    time_left(r->seconds_left, left);
    if (r->data_wait >= shown_data_wait)
        snprintf(wait, sizeof wait, "  data wait %.0f%%", 100 * r->data_wait);
    if (e->reducer && r->exposed > 0)
        snprintf(exposed, sizeof exposed, "  communication %.1f%%", 100 * r->exposed);
    snprintf(
        line, bytes, "epoch %lld/%lld  step %lld/%lld  loss %.4f  top-1 %.2f%%  lr %.4g  %.1f images/s%s%s  %s left",
        (long long)r->at->epoch + 1, (long long)e->config.train.epochs, (long long)r->at->step, (long long)r->steps,
        r->mean.total, 100 * r->mean.top1[0], r->lr, r->images_per_second, wait, exposed, left);
}

void report_live(session *e, const step_report *step)
{
    char line[256];
    step_line(e, step, line, sizeof line);
    log_live(e->log, "%s", line);
}

static void json_metrics(json_lines *json, const session *e, const char *prefix, const metrics *m)
{
    const size_t n = model_has_students(&e->step.model) ? HEADS : 1;
    const struct {
        const char *name;
        const double *values;
        size_t count;
    } groups[] = {{"top1", m->top1, n},
                  {"top5", m->top5, n},
                  {"cross_entropy", m->cross_entropy, n},
                  {"kd", m->kd, n - 1},
                  {"feature", m->feature, n - 1}};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", prefix, groups[i].name);
        json_numbers(json, key, groups[i].values, groups[i].count);
    }
}

static void json_place(json_lines *json, const char *event, int64_t epoch, int64_t step, int64_t steps_done)
{
    json_begin(json);
    json_text(json, "event", event);
    json_integer(json, "epoch", epoch + 1);
    json_integer(json, "step", step);
    json_integer(json, "steps_done", steps_done);
}

int report_step(session *e, json_lines *json, const step_report *step)
{
    char line[256];
    step_line(e, step, line, sizeof line);
    if (!e->log->terminal)
        log_info(e->log, "%s", line);
    if (e->info->rank != 0)
        return 0;
    json_place(json, "step", step->at->epoch, step->at->step, step->at->steps_done);
    json_number(json, "lr", step->lr);
    json_number(json, "loss", step->mean.total);
    json_metrics(json, e, "train_", &step->mean);
    json_number(json, "images_per_second", step->images_per_second);
    json_number(json, "data_wait", step->data_wait);
    if (e->reducer)
        json_number(json, "exposed_communication", step->exposed);
    json_integer(json, "bad_images", step->bad_images);
    if (step->scaling.on) {
        json_number(json, "loss_scale", step->scaling.scale);
        json_integer(json, "skipped_steps", step->scaling.skipped);
    }
    return json_end(json);
}

void report_data_wait(const session *e, double data_wait)
{
    const bool varies = e->images.source->side == SIZE_VARIES;
    log_info(e->log, "%.0f%% of the time is spent waiting for images; what helps: more data.threads (now %d)%s%s",
             100 * data_wait, e->loader_threads, varies ? ", images packed smaller (teskd data pack --max-side)" : "",
             varies && !e->config.data.stage[0] ? ", data.stage on a local disk" : "");
}

int report_resume(json_lines *json, const progress *at, const char *from)
{
    json_place(json, "resume", at->epoch, at->step, at->steps_done);
    json_text(json, "from", from);
    return json_end(json);
}

void report_skipped(session *e, const loss_scaling *scaling, int64_t steps)
{
    log_info(e->log, "%lld step%s skipped: gradients were not finite in 16 bits; the loss scale is now %g",
             (long long)steps, steps == 1 ? "" : "s", scaling->scale);
}

/* What was measured on the images of one set. */
static void print_table(const session *e, const char *set, const metrics *m)
{
    log_info(e->log, "  %-9s%9s%8s%11s%11s%13s", set, "top-1", "top-5", "CE", "KD", "feature");
    for (int head = 0; head < HEADS; head++) {
        char student_text[32] = "";
        if (!model_has_head(&e->step.model, head))
            continue;
        if (head > 0)
            snprintf(student_text, sizeof student_text, "%11.4f%13.2f", m->kd[head - 1], m->feature[head - 1]);
        log_info(e->log, "  %-9s%8.2f%%%7.1f%%%11.4f%s", head_names[head], 100 * m->top1[head], 100 * m->top5[head],
                 m->cross_entropy[head], student_text);
    }
}

static void epoch_line(const session *e, const epoch_report *r)
{
    char part[64] = "", time[64] = "";
    if (r->step < r->steps)
        snprintf(part, sizeof part, " to step %lld of %lld", (long long)r->step, (long long)r->steps);
    if (r->seconds > 0)
        snprintf(time, sizeof time, " in %.1f s (%.1f images/s)", r->seconds, r->images_per_second);
    log_info(e->log, "epoch %lld/%lld%s%s", (long long)r->epoch + 1, (long long)e->config.train.epochs, part, time);
}

int report_epoch(session *e, json_lines *json, const epoch_report *r)
{
    epoch_line(e, r);
    if (r->train)
        print_table(e, "training", r->train);
    if (r->test)
        print_table(e, "test", r->test);
    if (e->info->rank != 0)
        return 0;
    json_place(json, "epoch", r->epoch, r->step, r->steps_done);
    if (r->train) {
        json_number(json, "loss", r->train->total);
        json_metrics(json, e, "train_", r->train);
    }
    if (r->test)
        json_metrics(json, e, "test_", r->test);
    json_number(json, "seconds", r->seconds);
    return json_end(json);
}

void report_evaluation(session *e, const metrics *mean)
{
    log_info(e->log, "%.0f test images", mean->images);
    print_table(e, "test", mean);
}

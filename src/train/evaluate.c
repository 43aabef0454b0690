/* Owns the evaluation loop. Invariant: what is right is what op top_k says. A class that ties with the label's counts
 * against it, and with a score that is not finite nothing is right. One thread. */
#include "train/evaluate.h"
#include "base/error.h"
#include "train/signals.h"
#include "train/stop_vote.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    session *e;
    predictions *out; /* NULL: only the means are wanted */
    int32_t classes, views;
    double *logits;                   /* [share][classes], of one head at a time */
    double *log_probabilities[HEADS]; /* [share][classes], of the mean over the views; NULL where nobody asks */
    prediction *rows;                 /* [share] */
    metrics sums, averaged;           /* what the programs add up; what the mean over the views amounts to */
    stop_vote vote;
} evaluation;

static int evaluation_open(evaluation *ev, session *e, predictions *out)
{
    *ev = (evaluation){.e = e,
                       .out = out,
                       .classes = e->step.model.classes,
                       .views = e->config.eval.flip ? 2 : 1,
                       .vote = {.ranks = e->ranks}};
    if (ev->views == 1 && !out)
        return 0;
    size_t share = (size_t)batch_plan_largest_share(&e->test_plan);
    size_t count = share * (size_t)ev->classes;
    ev->logits = calloc(count, sizeof *ev->logits);
    ev->rows = calloc(share, sizeof *ev->rows);
    bool got = ev->logits && ev->rows;
    for (int head = 0; head < (ev->views > 1 ? HEADS : 1); head++) {
        if (!model_has_head(&e->step.model, head))
            continue;
        ev->log_probabilities[head] = calloc(count, sizeof(double));
        got = got && ev->log_probabilities[head];
    }
    CHECK(got, ERROR_MEMORY, "no memory for the class probabilities of %zu images", share);
    return 0;
}

static void evaluation_close(evaluation *ev)
{
    free(ev->logits);
    free(ev->rows);
    for (int head = 0; head < HEADS; head++)
        free(ev->log_probabilities[head]);
}

static int read_logits(const evaluation *ev, const program *p, int head)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "logits/%s", head_names[head]);
    return program_read(p, &ev->e->run, name, ev->logits);
}

/* log(exp(a) + exp(b)) */
static double log_add(double a, double b)
{
    double larger = a > b ? a : b, smaller = a > b ? b : a;
    return larger > -INFINITY ? larger + log1p(exp(smaller - larger)) : larger;
}

/* Adds softmax(logits) / views to the head's probabilities. */
static void add_softmax(evaluation *ev, int head, int32_t images)
{
    for (int32_t n = 0; n < images; n++) {
        const double *logits = ev->logits + (int64_t)n * ev->classes;
        double *log_probabilities = ev->log_probabilities[head] + (int64_t)n * ev->classes;
        double largest = logits[0], sum = 0;
        for (int32_t k = 1; k < ev->classes; k++)
            largest = fmax(largest, logits[k]);
        for (int32_t k = 0; k < ev->classes; k++)
            sum += exp(logits[k] - largest);
        for (int32_t k = 0; k < ev->classes; k++)
            log_probabilities[k] = log_add(log_probabilities[k], logits[k] - largest - log(sum * ev->views));
    }
}

/* Classes beside the label that lead it or tie with it; at least five where a score is not finite. */
static int32_t count_ahead(const double *scores, int32_t classes, int32_t label)
{
    int32_t ahead = 0;
    for (int32_t k = 0; k < classes; k++)
        ahead += !isfinite(scores[k]) ? 5 : k != label && scores[k] >= scores[label];
    return ahead;
}

/* The first class with the highest score; -1 where one is not finite. */
static int32_t find_predicted(const double *scores, int32_t classes)
{
    int32_t predicted = 0;
    for (int32_t k = 0; k < classes; k++) {
        if (!isfinite(scores[k]))
            return -1;
        if (scores[k] > scores[predicted])
            predicted = k;
    }
    return predicted;
}

static int run_view(evaluation *ev, const feed_batch *batch)
{
    TRY(program_run(&ev->e->run, batch->step));
    for (int head = HEADS - 1; head >= 0; head--) { /* the teacher last: its logits stay in the buffer */
        if (!ev->log_probabilities[head])
            continue;
        TRY(read_logits(ev, batch->step, head));
        add_softmax(ev, head, batch->images);
    }
    return 0;
}

/* What the averaged probabilities of a head amount to, in place of the views' own figures. */
static void measure_head(evaluation *ev, int head, const feed_batch *batch)
{
    for (int32_t n = 0; n < batch->images; n++) {
        const double *log_probabilities = ev->log_probabilities[head] + (int64_t)n * ev->classes;
        int32_t label = batch->labels[n], ahead = count_ahead(log_probabilities, ev->classes, label);
        ev->averaged.cross_entropy[head] -= log_probabilities[label];
        ev->averaged.top1[head] += ahead < 1;
        ev->averaged.top5[head] += ahead < 5;
    }
}

static void fill_rows(evaluation *ev, const feed_batch *batch)
{
    for (int32_t n = 0; n < batch->images; n++) {
        int64_t first = (int64_t)n * ev->classes;
        const double *log_probabilities = ev->log_probabilities[0] + first;
        const double *scores = ev->views > 1 ? log_probabilities : ev->logits + first;
        int32_t predicted = find_predicted(scores, ev->classes);
        ev->rows[n] = (prediction){.index = batch->position + n,
                                   .label = batch->labels[n],
                                   .predicted = predicted,
                                   .ahead = count_ahead(scores, ev->classes, batch->labels[n]),
                                   .probability = predicted < 0 ? NAN : exp(log_probabilities[predicted])};
    }
}

static int evaluate_batch(evaluation *ev, feed *batches, const feed_batch *batch)
{
    for (int head = 0; head < HEADS; head++)
        for (int64_t k = 0; ev->log_probabilities[head] && k < (int64_t)batch->images * ev->classes; k++)
            ev->log_probabilities[head][k] = -INFINITY;
    TRY(run_view(ev, batch));
    if (ev->views > 1) {
        TRY(feed_mirror(batches));
        TRY(run_view(ev, batch));
    }
    for (int head = 0; head < HEADS && ev->views > 1; head++)
        if (ev->log_probabilities[head])
            measure_head(ev, head, batch);
    ev->averaged.images += batch->images;
    if (ev->out)
        fill_rows(ev, batch);
    return 0;
}

/* The programs' sums, of one view; with several the heads' own figures are those of the averaged probabilities. */
static int collect(evaluation *ev)
{
    TRY(runtime_synchronize(&ev->e->run));
    TRY(metrics_read(&ev->sums, &ev->e->tensors, ev->averaged.images));
    TRY(metrics_reset(&ev->e->tensors));
    if (ev->views == 1)
        return 0;
    ev->averaged.total = ev->sums.total / ev->views;
    for (int student = 0; student < STUDENTS; student++) {
        ev->averaged.kd[student] = ev->sums.kd[student] / ev->views;
        ev->averaged.feature[student] = ev->sums.feature[student] / ev->views;
    }
    ev->sums = ev->averaged;
    return 0;
}

/* Who got the signal says so. */
static int end_stopped(const evaluation *ev)
{
    int number = signals_received();
    return comm_agree(ev->e->ranks,
                      number ? error_set(ERROR_STOPPED, "stopped by %s in an evaluation", signals_name(number)) : 0);
}

static int evaluate_share(evaluation *ev, feed *batches)
{
    TRY(metrics_reset(&ev->e->tensors));
    TRY(feed_seek(batches, 0, 0));
    for (int64_t step = 0; step < ev->e->test_plan.steps; step++) {
        feed_batch batch;
        comm_enter(ev->e->ranks, PHASE_EVALUATE);
        TRY(feed_next(batches, &batch));
        if (batch.step)
            TRY(evaluate_batch(ev, batches, &batch));
        if (ev->out)
            TRY(predictions_add(ev->out, ev->rows, ev->logits, batch.images));
        TRY(stop_vote_start(&ev->vote));
        if (ev->vote.stops)
            break;
    }
    TRY(stop_vote_count(&ev->vote));
    TRY(collect(ev));
    return ev->vote.stops ? end_stopped(ev) : 0;
}

int evaluate_images(session *e, feed *batches, predictions *out, metrics *mean)
{
    evaluation ev;
    CHECK(!out || !e->config.eval.flip || !predictions_want_logits(out), ERROR_INTERNAL,
          "eval.flip leaves no logits to write");
    int status = comm_agree(e->ranks, evaluation_open(&ev, e, out));
    if (status == 0)
        status = evaluate_share(&ev, batches); /* ranks meet in it: a failure of one ends the others' waiting */
    if (status == 0)
        status = metrics_reduce(&ev.sums, e->ranks);
    *mean = metrics_mean(&ev.sums);
    evaluation_close(&ev);
    return status;
}

int evaluate(session *e, feed *batches, metrics *mean)
{
    return evaluate_images(e, batches, NULL, mean);
}

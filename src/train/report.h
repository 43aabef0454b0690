/* What a person sees: the banner, the line of a step, the table of an epoch; and the same in metrics.jsonl. */
#ifndef TESKD_TRAIN_REPORT_H
#define TESKD_TRAIN_REPORT_H

#include "base/json_lines.h"
#include "session/session.h"
#include "train/checkpoint.h"
#include "train/metrics.h"

/* Network, method, data, device, ranks, threads, versions and memory, before the first step. */
void report_banner(session *e);

/* One line per step: rewritten on a terminal, else (and in the metrics) every log.every steps. `mean` is over the steps
 * since the last such line. */
typedef struct {
    const progress *at;
    int64_t steps; /* of an epoch */
    double lr, images_per_second, seconds_left;
    double data_wait; /* share of the time since the last line in which a rank waited for images, their mean */
    double exposed; /* share of that time in which a rank computed nothing because of sums over the ranks, their mean */
    int64_t bad_images; /* replaced by others since this process began, over all ranks */
    metrics mean;
    loss_scaling scaling;
} step_report;
void report_live(session *e, const step_report *step);
int report_step(session *e, json_lines *json, const step_report *step);

/* What helps against waiting for images. */
void report_data_wait(const session *e, double data_wait);

/* A record in the metrics alone: training goes on from this place, `from` is the checkpoint (empty: from the
 * beginning). What stands before it with more steps done has been undone. */
int report_resume(json_lines *json, const progress *at, const char *from);

/* Says how many of the steps since the last line were skipped. */
void report_skipped(session *e, const loss_scaling *scaling, int64_t steps);

/* Two tables: top-1, top-5 and every loss of every head on the training and on the test images. */
typedef struct {
    int64_t epoch, step, steps, steps_done; /* step < steps: training ended within the epoch */
    const metrics *train;                   /* NULL: no step since the epoch began */
    const metrics *test;                    /* NULL: without evaluation */
    double seconds, images_per_second;      /* of this process's part of the epoch; 0: none */
} epoch_report;
int report_epoch(session *e, json_lines *json, const epoch_report *epoch);

/* Table of an evaluation alone. */
void report_evaluation(session *e, const metrics *mean);

#endif

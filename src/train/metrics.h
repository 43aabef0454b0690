/* What is measured in every step, added up over steps and ranks. */
#ifndef TESKD_TRAIN_METRICS_H
#define TESKD_TRAIN_METRICS_H

#include "dist/comm.h"
#include "model/step.h"
#include "run/store.h"

/* Sums over images: a loss times the images of its step, counts of right answers. The feature loss, which the joint
 * loss takes summed over the batch, is measured per image. An array of doubles on purpose:
 * ranks add it up in one reduction, checkpoints store it as one tensor. */
typedef struct {
    double images;
    double total; /* the joint loss */
    double cross_entropy[HEADS], kd[STUDENTS], feature[STUDENTS];
    double top1[HEADS], top5[HEADS];
} metrics;

enum { METRICS_COUNT = sizeof(metrics) / sizeof(double) };

/* What this rank's steps have left in the store's "loss_sums", over so many images. Waits for the device. `total` is
 * meaningful for training steps only: its feature part depends on the batch. */
int metrics_read(metrics *m, const store *tensors, double images);

/* What went wrong since the sums began, on this rank: runs of programs from the first whose joint loss was not finite,
 * and steps that were withheld (graph_sgd). Waits for the device. */
typedef struct {
    int64_t bad_runs, bad_gradients;
} metrics_bad;
int metrics_read_bad(metrics_bad *bad, const store *tensors);

/* Begins the sums anew. */
int metrics_reset(const store *tensors);

/* Where gradients are scaled against underflow (op loss_scale): the scale, the steps skipped so far because their
 * gradients were not finite, and how many of them were the last ones in a row. */
typedef struct {
    bool on;
    double scale;
    int64_t skipped, in_row;
} loss_scaling;
int loss_scaling_read(loss_scaling *s, const store *tensors);

/* Adds b to a. */
void metrics_add(metrics *a, const metrics *b);

/* All-reduce over the ranks: each passes its own sums and all get the whole. */
int metrics_reduce(metrics *m, comm *ranks);

/* Turns sums into means per image; top1 and top5 become shares from 0 to 1. `images` stays. */
metrics metrics_mean(const metrics *m);

#endif

/* What is measured in every step, added up over steps and ranks. */
#ifndef TESKD_TRAIN_METRICS_H
#define TESKD_TRAIN_METRICS_H

#include "dist/comm.h"
#include "model/network.h"
#include "run/program.h"

/* Sums over pictures: a loss times the pictures of its step, counts of right answers. The feature loss, which the joint
 * loss takes summed over the batch, is measured per picture. An array of doubles on purpose:
 * ranks add it up in one reduction, checkpoints store it as one tensor. */
typedef struct {
    double images;
    double total; /* the joint loss */
    double cross_entropy[HEADS], kd[STUDENTS], feature[STUDENTS];
    double top1[HEADS], top5[HEADS];
} metrics;

enum { METRICS_COUNT = sizeof(metrics) / sizeof(double) };

/* Adds this rank's part of the step that the program just ran. `total` is meaningful for training steps only: its
 * feature part depends on the batch. */
void metrics_add_step(metrics *m, const program *p, const runtime *r, const model_options *options, int32_t images,
                      int32_t global_images);

/* Adds b to a. */
void metrics_add(metrics *a, const metrics *b);

/* Times `factor`, the pictures too. */
void metrics_scale(metrics *m, double factor);

/* Sums over the ranks; each passes its own part and all get the whole. */
int metrics_reduce(metrics *m, comm *ranks);

/* Turns sums into means a picture; top1 and top5 become shares from 0 to 1. `images` stays. */
metrics metrics_mean(const metrics *m);

#endif

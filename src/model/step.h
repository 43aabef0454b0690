/* The graphs that are run: a training step and an evaluation pass. */
#ifndef TESKD_MODEL_STEP_H
#define TESKD_MODEL_STEP_H

#include "graph/precision.h"
#include "graph/rewrite.h"
#include "model/network.h"

/* The state LOSS_SUMS_STATE: what every step adds its measurements to, until somebody takes them and sets it to zero.
 * Sums over images: a loss times the images that it is a mean of, counts of right answers (top-1, top-5). The feature
 * loss, which the joint loss takes summed over the batch, is summed as it is. A sum that is not finite stays so: the
 * count of runs says when the joint loss became it. Float64, in this order. */
typedef struct {
    double total; /* the joint loss */
    double cross_entropy[HEADS], kd[STUDENTS], feature[STUDENTS];
    double right[HEADS][2];
    double bad_runs;      /* of programs, from the first after which `total` was not finite */
    double bad_gradients; /* steps that sgd_options.withholds has found */
} loss_sums;

#define LOSS_SUMS_STATE "loss_sums"
enum { LOSS_SUMS = sizeof(loss_sums) / sizeof(double) };

typedef struct {
    model_options model;
    precision_options precision;
    unsigned rewrites; /* graph/rewrite.h */
    bool fuses;        /* the device's kernels can give further results (graph/fusion.h) */
    bool placed_rows;  /* and use values placed for them (graph/placement.h) */
    sgd_options sgd;
} step_options;

/* Builds forward, losses and their sums, rewrites, backward and (for a whole step, or its last micro-batch) update, in
 * that order, into an initialised graph. Inputs: "target", "lr" where there is an update, and those of step_input.
 * Returns graph_status; free the model with model_free. */
int step_build_training(graph *g, model *m, const step_options *options, const step_shape *shape);

/* Builds the forward with running statistics; a plain model option leaves the teacher alone. */
int step_build_evaluation(graph *g, model *m, const step_options *options, int32_t batch, const step_input *input);

#endif

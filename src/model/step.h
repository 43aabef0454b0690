/* The graphs that are run: a training step and an evaluation pass. */
#ifndef TESKD_MODEL_STEP_H
#define TESKD_MODEL_STEP_H

#include "graph/rewrite.h"
#include "model/network.h"

typedef struct {
    model_options model;
    rewrite_options rewrites;
    sgd_options sgd;
} step_options;

/* Builds forward, losses, rewrites, backward and (for the whole or last part of a batch) update, in that order, into an
 * initialised graph. Inputs: "input", "target", and "lr" where there is an update. Returns graph_status; free the model
 * with model_free. */
int step_build_training(graph *g, model *m, const step_options *options, const step_shape *shape);

/* Builds the forward with running statistics; a plain model option leaves the teacher alone. */
int step_build_evaluation(graph *g, model *m, const step_options *options, int32_t batch);

#endif

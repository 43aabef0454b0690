/* Owns the order of the passes. One thread. */
#include "model/step.h"

int step_build_training(graph *g, model *m, const step_options *options, const step_shape *shape)
{
    model_build(m, g, &options->model, shape);
    graph_rewrite(g, &options->rewrites);
    graph_backward(g, shape->sync_bn);
    graph_accumulate(g, shape->part);
    if (shape->part == PART_WHOLE || shape->part == PART_LAST)
        graph_sgd(g, &options->sgd);
    graph_drop_dead(g);
    return graph_status(g);
}

int step_build_evaluation(graph *g, model *m, const step_options *options, int32_t batch)
{
    const step_shape shape = {.training = false, .batch = batch, .global_batch = batch, .loss_batch = batch};
    model_build(m, g, &options->model, &shape);
    graph_rewrite(g, &options->rewrites);
    return graph_status(g);
}

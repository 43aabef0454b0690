/* The step of the paper's recipe, which the tests change in what they are about. */
#ifndef TESKD_TESTS_GRAPH_RECIPE_H
#define TESKD_TESTS_GRAPH_RECIPE_H

#include "model/step.h"

static inline step_options recipe_step(const network_row *network)
{
    return (step_options){.model = {.network = network,
                                    .teskd = true,
                                    .students_on = {true, true, true},
                                    .classes = 100,
                                    .image_height = network->input,
                                    .image_width = network->input,
                                    .temperature = 4,
                                    .ce_weight = 0.2,
                                    .kd_weight = 0.8,
                                    .feature_weight = 1e-7,
                                    .teacher_weight = 1,
                                    .student_weights = {1, 1, 1}},
                          .rewrites = REWRITE_ALL,
                          .sgd = {.momentum = 0.9, .weight_decay = 5e-4}};
}

#endif

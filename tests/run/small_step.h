/* A training step small enough to be differentiated numerically: generated weights and images, any backend.
 * Failures end the running test. */
#ifndef TESKD_TESTS_RUN_SMALL_STEP_H
#define TESKD_TESTS_RUN_SMALL_STEP_H

#include "model/step.h"
#include "run/program.h"

enum { SMALL_BATCH = 3, SMALL_SIDE = 16, SMALL_CLASSES = 5 };

typedef struct {
    bool teskd, kd_detach_teacher;
    int32_t padded_channels;
    double feature_weight;
    unsigned rewrites;
    sgd_options sgd;
    bucket_sizes buckets;
    comm *ranks; /* NULL: alone; else this rank takes its share of the images, batch normalisation is synchronised */
} small_settings;

typedef struct {
    step_options options;
    int first, batch; /* this rank's images of the SMALL_BATCH */
    backend *device;
    comm *own_ranks; /* NULL when the settings brought one */
    store tensors;
    reduction *sums;
    runtime run;
    program *step;    /* forward, backward, update */
    program *forward; /* the same forward alone */
} small_step;

typedef int open_backend(backend **out);
int open_reference(backend **out);
int open_cpu(backend **out);

/* Weights, momentum and running statistics are generated from their names, alike on every backend. */
void small_step_open(small_step *s, const small_settings *settings, open_backend *open);
void small_step_close(small_step *s);

/* Runs one of the two programs on the batch. */
void small_step_run(small_step *s, program *p, double lr);

/* A value of the program, or a tensor of the store in memory order, as float64. The caller frees it. */
double *small_step_value(const small_step *s, const program *p, const char *name, size_t *count);
double *small_step_tensor(const small_step *s, const char *name);

/* The class of image n. */
int32_t small_target(int n);

/* Is this the name of a student's parameter? */
bool is_student(const char *name);

/* Everything that a step gives must agree as vectors: logits, features and losses to `outputs`, gradients to
 * `gradients` of themselves or of a hundredth of all of them, whichever is larger. */
void assert_same_step(const small_step *a, const small_step *b, double outputs, double gradients);

#endif

/* Everything a subcommand works with, put together from the settings. */
#ifndef TESKD_TRAIN_EXPERIMENT_H
#define TESKD_TRAIN_EXPERIMENT_H

#include "base/log.h"
#include "base/settings.h"
#include "io/dataset.h"
#include "model/step.h"
#include "run/program.h"

/* A program for one size of a rank's share of (a part of) a batch. */
typedef struct {
    int32_t images, global_images;
    int32_t loss_images; /* pictures of the whole global batch, of which this may be a part */
    batch_part part;
    program *program;
} sized_program;

/* Sizes: the full batch and the last one; training has up to three parts of each. */
enum { EVALUATION_SIZES = 2, TRAINING_SIZES = 6 };

typedef struct {
    settings config;
    logger *log;
    comm *ranks;
    const comm_info *info;
    backend *device;
    int threads;
    step_options step;
    dataset train_set, test_set;
    int64_t train_images, test_images;
    step_input train_input, test_input;
    int32_t batch, eval_batch; /* global */
    bool other_data;           /* a resume may go on with other sets */
    bool plan_only;            /* the programs will not run: no memory is taken for weights */
    store tensors;
    reduction *sums; /* NULL with one rank */
    runtime run;
    sized_program training[TRAINING_SIZES], evaluation[EVALUATION_SIZES];
} experiment;

/* What will be needed. WILL_TRAIN: a batch that divides among the ranks. */
typedef enum { DATA_NONE = 0, DATA_TRAIN = 1, DATA_TEST = 2, WILL_TRAIN = 4 } data_parts;

/* Checks the settings, then opens the device and the data sets; fills step from the settings. Every rank calls it; all
 * get the same outcome. A set that is not among `parts`, or a dry run without data.path, counts as large as the
 * official one. */
int experiment_open(experiment *e, const settings *config, logger *log, comm *ranks, unsigned parts);
void experiment_close(experiment *e);

/* Whether work that came out as `status` is cleaned up. Not after a failure of one of several ranks: the process is
 * about to end, the peers wait for word of the failure until it has been reported, and freeing memory of a device could
 * wait for a sum that never ends. */
bool experiment_closes(const experiment *e, int status);

/* Closes, where that is to be; returns `status`. */
int experiment_end(experiment *e, int status);

/* Builds the programs of a training step with fresh parameters / of an evaluation. The first of the two calls makes the
 * store. */
int experiment_build_training(experiment *e);
int experiment_build_evaluation(experiment *e);

/* Allocates what the programs need. */
int experiment_bind(experiment *e);

/* Refuses, by ERROR_USAGE, to let an option write over a file of the data set. */
int experiment_check_target(const experiment *e, const char *option, const char *path);

/* Are the pictures made up? */
bool experiment_makes_data(const settings *config);

/* Steps of an epoch. */
int64_t experiment_steps(const experiment *e);

/* Pictures of the batch of this step of an epoch, and of a part of a batch (the last one may have fewer). */
int64_t experiment_step_images(const experiment *e, int64_t step);
int32_t experiment_part_images(const experiment *e);

/* Parts that the batch of this step of an epoch is computed in: train.accumulate, or fewer in the last step. */
int64_t experiment_parts(const experiment *e, int64_t step);

#endif

/* Everything a subcommand works with, put together from the settings. */
#ifndef TESKD_TRAIN_EXPERIMENT_H
#define TESKD_TRAIN_EXPERIMENT_H

#include "base/log.h"
#include "base/settings.h"
#include "io/dataset.h"
#include "io/loader.h"
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
    int32_t batch, eval_batch; /* global */
    bool plan_only;            /* the programs will not run: no memory is taken for weights */
    store tensors;
    reduction *sums; /* NULL with one rank */
    runtime run;
    sized_program training[TRAINING_SIZES], evaluation[EVALUATION_SIZES];
} experiment;

typedef enum { DATA_NONE = 0, DATA_TRAIN = 1, DATA_TEST = 2 } data_parts;

/* Opens the device and the data sets; fills step from the settings. Every rank calls it; all get the same outcome.
 * A set that is not among `parts`, or a dry run without data.path, counts as large as the official one. */
int experiment_open(experiment *e, const settings *config, logger *log, comm *ranks, unsigned parts);
void experiment_close(experiment *e);

/* Builds the programs of a training step with fresh parameters / of an evaluation. The first of the two calls makes the
 * store. */
int experiment_build_training(experiment *e);
int experiment_build_evaluation(experiment *e);

/* Allocates what the programs need. */
int experiment_bind(experiment *e);

/* Steps of an epoch. */
int64_t experiment_steps(const experiment *e);

/* Parts that the batch of this step of an epoch is computed in: train.accumulate, or fewer in the last step. */
int64_t experiment_parts(const experiment *e, int64_t step);

/* The loader of one of the data sets; the caller closes it. */
int experiment_open_loader(const experiment *e, bool training, loader **out);

/* The program for the batch, with the batch copied into its inputs. The loader of the training set hands out the parts
 * of batches. */
int experiment_feed_training(experiment *e, const loader_batch *batch, const sized_program **out);
int experiment_feed_evaluation(experiment *e, const loader_batch *batch, program **out);

#endif

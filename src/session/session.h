/* A device with weights, data and programs, put together from the settings: what trains and evaluates. */
#ifndef TESKD_SESSION_SESSION_H
#define TESKD_SESSION_SESSION_H

#include "base/log.h"
#include "base/settings.h"
#include "io/data/batch_plan.h"
#include "io/data/source.h"
#include "model/step.h"
#include "run/program.h"
#include "session/configure.h"

typedef struct {
    settings config;
    logger *log;
    comm *ranks;
    const comm_info *info;
    backend *device;
    int threads, loader_threads;
    bool near_device;  /* this rank runs on cores near its GPU, as far as the system tells */
    step_options step; /* for the last size of training images */
    image_options images;
    char data_path[SETTING_TEXT_BYTES]; /* where the data are read: data.path, or a copy of it (session/stage.h) */
    image_set train_set, test_set;
    int64_t train_images, test_images;
    batch_plan train_plan, test_plan; /* made with the programs */
    step_input train_input, test_input;
    bool other_data; /* a resume may go on with other sets */
    bool plan_only;  /* the programs will not run: no memory is taken for weights */
    store tensors;
    reduction *reducer; /* NULL with one rank */
    runtime run;
    program *training[IMAGE_SIZES_MOST][MICRO_BATCH_KINDS]; /* by size and kind; NULL: this rank has no image of one */
    program *evaluation[MICRO_BATCH_KINDS];
} session;

/* What a subcommand needs. WILL_TRAIN: a batch that divides among the ranks. */
typedef enum { DATA_NONE = 0, DATA_TRAIN = 1, DATA_TEST = 2, WILL_TRAIN = 4 } session_needs;

/* Checks the settings, then opens the device and the data sets; fills step from the settings. Every rank calls it; all
 * get the same outcome. A set that is not among `needs`, or a dry run without data.path, counts as large as the
 * official one. */
int session_open(session *e, const settings *config, logger *log, comm *ranks, unsigned needs);
void session_close(session *e);

/* Whether work that came out as `status` is cleaned up. Not after a failure of one of several ranks: the process is
 * about to end, and its peers wait until the failure has been reported. Freeing a device's memory could wait for a sum
 * that never ends. */
bool session_closes(const session *e, int status);

/* Closes, where that is to be; returns `status`. */
int session_end(session *e, int status);

/* The training programs for images of the last size. */
program *const *session_last_size(const session *e);

/* How the images of a split come into steps: by the device, its free memory and the size of the set. Asked for once by
 * session_open, before that memory is taken. */
int session_choose_input(const session *e, data_split split, step_input *input);

/* Plans the epoch and builds the programs of a training step with fresh parameters / of an evaluation. The first of the
 * two calls makes the store. */
int session_build_training(session *e);
int session_build_evaluation(session *e);

/* Allocates what the programs need. */
int session_bind(session *e);

/* Refuses, by ERROR_USAGE, to let an option write over a file of the data set. */
int session_check_target(const session *e, const char *option, const char *path);

#endif

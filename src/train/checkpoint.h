/* Checkpoints: everything that a run needs to go on as if it had never stopped. docs/formats.md lists the contents. */
#ifndef TESKD_TRAIN_CHECKPOINT_H
#define TESKD_TRAIN_CHECKPOINT_H

#include "io/file/tensor_file.h"
#include "session/session.h"
#include "train/metrics.h"

/* Where training stands: `step` steps of epoch `epoch` are done. All of them: the epoch's evaluation is still to come;
 * once it is made, training stands at step 0 of the next epoch. */
typedef struct {
    int64_t epoch, step, steps_done;
    int64_t evaluated_at; /* steps_done at the latest evaluation; -1: none yet */
    double best_top1;     /* of the teacher on the test images, 0 to 1; negative: not evaluated yet */
    metrics epoch_sums;   /* over all ranks, since the epoch began */
} progress;

/* Rank 0 reads weights, statistics and momentum and hands them to all ranks. A damaged (ERROR_DAMAGED) or
 * foreign file, or one of another network, is refused by name. */
int checkpoint_load(session *e, const char *path, progress *at);

/* Only the weights and statistics (no momentum, no progress) into a store that has nothing else, for an evaluation;
 * with eval.ema their EMA. */
int checkpoint_load_weights(session *e, const char *path);

/* Fills epoch, step, steps_done and evaluated_at; all else stays. Whether the epoch has so many steps is the caller's
 * to know. */
int checkpoint_position(tensor_file *file, progress *at);

/* Fills `config` with the settings that a checkpoint was made with, model.classes never 0. Every rank calls it. */
int checkpoint_settings(comm *ranks, const char *path, settings *config);

#endif

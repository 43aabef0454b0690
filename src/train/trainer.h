/* The training loop. */
#ifndef TESKD_TRAIN_TRAINER_H
#define TESKD_TRAIN_TRAINER_H

#include "train/experiment.h"

/* Trains from `resume` (NULL: fresh; "auto": the last checkpoint in output.dir, if any; else a path) to train.epochs or
 * train.max_steps. Leaves last.h5, previous.h5, best.h5 and metrics.jsonl in output.dir. Every rank calls it; all get
 * the same outcome. */
int train(experiment *e, const char *resume);

#endif

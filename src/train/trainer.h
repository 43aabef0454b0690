/* The training loop. */
#ifndef TESKD_TRAIN_TRAINER_H
#define TESKD_TRAIN_TRAINER_H

#include "session/session.h"
#include "train/output_folder.h"

/* Trains from the folder's checkpoint, or afresh, to train.epochs or train.max_steps. Leaves last.h5, previous.h5,
 * best.h5 and metrics.jsonl in the folder, which is output.dir. Every rank calls it; all get the same outcome. */
int train(session *e, output_folder *output);

#endif

/* Loads the checkpoint that a training goes on from. */
#ifndef TESKD_TRAIN_RESUME_H
#define TESKD_TRAIN_RESUME_H

#include "session/session.h"
#include "train/checkpoint.h"
#include "train/output_folder.h"

/* Loads output_folder_checkpoint. Where that is damaged and --resume auto chose it, the one before is loaded in its
 * place; each that is passed over is named in a warning and stays, under another name. Every rank calls it. */
int resume_load(session *e, output_folder *output, progress *at);

#endif

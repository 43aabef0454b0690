/* The folder that a training writes to, output.dir: last.h5, previous.h5, best.h5, step_N.h5 and metrics.jsonl.
 *
 * One training at a time has it (train/folder_lock.h). A run that is there already is gone on with or removed only on
 * request. The folder itself may be reached through a link; its files may not be links. Every rank calls these
 * functions; only rank 0 touches files, and all get the same outcome. Main thread only. */
#ifndef TESKD_TRAIN_OUTPUT_FOLDER_H
#define TESKD_TRAIN_OUTPUT_FOLDER_H

#include "base/log.h"
#include "dist/comm.h"

#include <stdbool.h>

typedef struct output_folder output_folder;

typedef struct {
    const char *folder, *resume; /* resume: NULL, "auto" or a file */
    bool overwrite;
    logger *log;
    comm *ranks;
} output_options;

/* Makes the folder, locks it and removes temporary files that killed runs left there. Refuses one that holds a run, by
 * ERROR_USAGE, unless `resume` or `overwrite` says what becomes of that run. Nothing of the run is changed yet. */
int output_folder_open(output_folder **out, const output_options *options);

/* The checkpoint to go on from; empty: train afresh. Belongs to the folder. */
const char *output_folder_checkpoint(const output_folder *f);

/* For a checkpoint that turns out to be damaged: where --resume auto chose it the one before takes its place, and 1 is
 * returned; 0 when there is none. */
int output_folder_fall_back(output_folder *f);

/* Once the run goes on from a checkpoint: renames those that were passed over to NAME.damaged, so that nothing is
 * written over them, and says so. */
int output_folder_set_aside(output_folder *f);

/* With `overwrite`: removes the run that is there. To be called when nothing of it is needed any more. */
int output_folder_clear(output_folder *f);

/* Is this the name of a file that a training writes in its folder? */
bool output_folder_writes(const char *name);

/* Unlocks. `*f` becomes NULL; it may be NULL already. */
void output_folder_close(output_folder **f);

#endif

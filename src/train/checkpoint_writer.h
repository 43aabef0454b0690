/* Writes checkpoints while training goes on: rank 0 takes a snapshot between two steps, and a thread of its own makes a
 * file of it. Every rank calls these functions unless said otherwise, and all get the same outcome.
 *
 * A save is whole, and known to be, when the next call of save or settle has returned 0: the ranks learn there what the
 * thread has come to. Until then the newest checkpoint is the one before. */
#ifndef TESKD_TRAIN_CHECKPOINT_WRITER_H
#define TESKD_TRAIN_CHECKPOINT_WRITER_H

#include "base/error.h"
#include "train/snapshot.h"

#include <pthread.h>
#include <stdatomic.h>

/* Besides last.h5. */
typedef enum {
    SAVE_KEEPS_PREVIOUS = 1, /* the last.h5 that is there becomes previous.h5 */
    SAVE_IS_BEST = 2         /* best.h5 gets the same content, before last.h5 does */
} save_options;

/* A checkpoint that a resume can take. An empty path: there is none. */
typedef struct {
    char path[SETTING_TEXT_BYTES + 32];
    int64_t epoch, step;
} resume_point;

/* Begins with `e` set and all else zero. */
typedef struct {
    session *e;
    bool saved;           /* in this process: there is something to resume */
    resume_point newest;  /* that is known to be whole */
    resume_point written; /* that is being written */
    snapshot state;       /* from here on rank 0's */
    unsigned options;
    pthread_t thread;
    bool under_way;
    atomic_bool done;
    int status; /* of the thread, and its message: set before `done` */
    error_copy message;
} checkpoint_writer;

/* Takes the memory. */
int checkpoint_writer_open(checkpoint_writer *w);

/* Notes that the checkpoint `path`, which the run goes on from, is of this place. */
void checkpoint_writer_note(checkpoint_writer *w, const char *path, const progress *at);

/* Waits for the save before, and starts one of this place into output.dir. ERROR_DATA when the weights or what goes
 * with them are not finite: nothing is written then. */
int checkpoint_writer_save(checkpoint_writer *w, const progress *at, unsigned options);

/* Waits until nothing is being written. */
int checkpoint_writer_settle(checkpoint_writer *w);

/* Whether a save of this rank has failed: settle says how. Does not wait; one rank alone may call it. */
bool checkpoint_writer_has_failed(const checkpoint_writer *w);

/* After a run that ended as `status`. What is being written is of a good state: it gets a while to become whole, also
 * after a failure, and without limit where the process goes on. One rank alone may call it. */
void checkpoint_writer_close(checkpoint_writer *w, int status);

#endif

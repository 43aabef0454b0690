/* A snapshot: the state of a training at the end of a step, in host memory, from which checkpoints are written while
 * training goes on. Rank 0's: every rank holds the same then. */
#ifndef TESKD_TRAIN_SNAPSHOT_H
#define TESKD_TRAIN_SNAPSHOT_H

#include "session/session.h"
#include "train/checkpoint.h"

typedef struct {
    const session *e; /* of it only what does not change while training goes on is read */
    void *tensors;    /* what store_read_saved gives */
    progress at;
} snapshot;

/* Takes the memory, so that what a checkpoint needs is there before it is due. */
int snapshot_open(snapshot *s, const session *e);
void snapshot_close(snapshot *s);

/* Waits for the device, looks whether all is finite, and copies it. ERROR_DATA when it is not: then there is no
 * snapshot. Main thread. */
int snapshot_take(snapshot *s, const progress *at);

/* Writes a checkpoint; a file that stands at `path` stays as `kept`, unless that is NULL. Any thread. */
int snapshot_write(const snapshot *s, const char *path, const char *kept);

/* The name of a tensor in a checkpoint: weights and running statistics are "weights/NAME", the others have a prefix of
 * their own. */
enum { CHECKPOINT_NAME_BYTES = 2 * GRAPH_NAME_BYTES };
void checkpoint_tensor_name(const store_entry *entry, char name[CHECKPOINT_NAME_BYTES]);

#endif

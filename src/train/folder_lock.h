/* The lock of a folder that one training at a time may write to: a file "teskd.lock" in it, which says who.
 *
 * The file is locked (flock), so that a killed run leaves nothing that is in the way, and touched every few seconds.
 * Some file systems have no locks, and some network file systems hide those of other hosts. There the file counts as
 * left behind when it has not been touched for half a minute. Main thread only. */
#ifndef TESKD_TRAIN_FOLDER_LOCK_H
#define TESKD_TRAIN_FOLDER_LOCK_H

#include "base/log.h"

typedef struct folder_lock folder_lock;

/* ERROR_FILE when it cannot be made, or when a run holds it: the message names host, process and start of that run. May
 * wait half a minute to see whether that run is alive. */
int folder_lock_take(folder_lock **lock, const char *folder, logger *log);

/* Removes the file. `*lock` becomes NULL; it may be NULL already. */
void folder_lock_release(folder_lock **lock);

#endif

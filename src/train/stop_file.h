/* output.dir/stopped: how a batch script learns that a signal stopped a run in order, whatever exit code its launcher
 * gives (mpirun's is 1 after a SIGTERM of its own). */
#ifndef TESKD_TRAIN_STOP_FILE_H
#define TESKD_TRAIN_STOP_FILE_H

/* At the start of a run: a file that an earlier run left goes. */
int stop_file_remove(const char *dir);

/* At its end: a file with one line of text, which must not be there yet. */
int stop_file_write(const char *dir, const char *text);

#endif

/* The turn at HDF5, and what it says of a failure: as this program's message instead of lines on stderr.
 *
 * HDF5 is a serial library with global state (some builds have a lock of their own, which is not relied on). A training
 * calls it from several threads: one writes a checkpoint, others open shards. */
#ifndef TESKD_IO_FILE_HDF5_REPORT_H
#define TESKD_IO_FILE_HDF5_REPORT_H

#include <hdf5.h>

/* Around all calls of HDF5: any thread may come, one goes on, and HDF5 prints nothing. They nest. */
void hdf5_begin(void);
void hdf5_end(void);

/* Sets "PATH: cannot WHAT: HDF5's reason" from the current HDF5 error stack and returns ERROR_FILE. Call it before any
 * other HDF5 call, which would clear the stack. */
int h5_error(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

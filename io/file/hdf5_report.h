/* What HDF5 says of a failure: as this program's message instead of lines on stderr. The thread that calls HDF5. */
#ifndef TESKD_IO_FILE_HDF5_REPORT_H
#define TESKD_IO_FILE_HDF5_REPORT_H

#include <hdf5.h>

/* HDF5 prints its error stack by itself; these keep it silent around our calls and give the printing back. */
typedef struct {
    H5E_auto2_t print;
    void *data;
} h5_silence;

h5_silence h5_silence_begin(void);
void h5_silence_end(h5_silence silence);

/* Sets "PATH: cannot WHAT: HDF5's reason" from the current HDF5 error stack and returns ERROR_FILE. Call it before any
 * other HDF5 call, which would clear the stack. */
int h5_error(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

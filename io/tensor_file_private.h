/* What the writing and the reading half of tensor_file share. */
#ifndef TESKD_IO_TENSOR_FILE_PRIVATE_H
#define TESKD_IO_TENSOR_FILE_PRIVATE_H

#include "base/atomic_file.h"
#include "io/tensor_file.h"

#include <hdf5.h>
#include <stdbool.h>

#define TENSOR_FILE_FORMAT "teskd-checkpoint"
#define TENSOR_FILE_CHECKSUM "xxh3"
enum { TENSOR_FILE_VERSION = 1 };

struct tensor_file {
    hid_t h5;
    char *path;
    atomic_file *file; /* while writing: what the commit fills */
    bool failed;       /* a write failed: the commit must not happen */
    tensor_info *tensors;
    int32_t count, capacity;
};

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

/* Access properties without file locks and with checksummed metadata (file format 1.8 or later); negative on failure.
 * `in_memory`: for a file that is built in memory and never written by HDF5 itself. */
hid_t h5_access(bool in_memory);

/* File type (little-endian) and memory type of a real type. */
hid_t h5_file_type(real_type type);
hid_t h5_memory_type(real_type type);

/* The checksum that follows the HDF5 file. Checking a file that has none succeeds. */
enum { SEAL_BYTES = 16 };
void seal_make(const void *bytes, size_t count, uint8_t seal[SEAL_BYTES]);
int seal_check(const char *path);

/* Elements of a shape. */
size_t tensor_elements(int32_t rank, const int64_t *shape);

/* "[64, 3, 3, 3]" in a buffer of the caller. */
enum { SHAPE_TEXT = 128 };
const char *shape_text(int32_t rank, const int64_t *shape, char text[SHAPE_TEXT]);

#endif

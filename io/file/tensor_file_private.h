/* What the writing and the reading half of tensor_file share. */
#ifndef TESKD_IO_FILE_TENSOR_FILE_PRIVATE_H
#define TESKD_IO_FILE_TENSOR_FILE_PRIVATE_H

#include "base/atomic_file.h"
#include "io/file/hdf5_report.h"
#include "io/file/tensor_file.h"

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
    int status;        /* of listing the tensors */
    tensor_info *tensors;
    int32_t count, capacity;
};

/* Access properties of a file in memory, which HDF5 neither reads nor writes itself, with checksummed metadata (file
 * format 1.8 or later); negative on failure. */
hid_t h5_access(void);

/* HDF5 wants a name also for a file in memory and looks whether there is one: a name that cannot be. */
enum { H5_NAME = 64 };
const char *h5_name(const tensor_file *file, char name[H5_NAME]);

/* File type (little-endian) and memory type of a real type. */
hid_t h5_file_type(dtype type);
hid_t h5_memory_type(dtype type);

/* The block before the HDF5 file. seal_make fills it for the `rest` of the file at `path`. seal_read reads a whole
 * file, block and rest, and refuses one that is not sealed or not whole; the caller frees `*bytes`. */
enum { SEAL_BYTES = 512 };
int seal_make(const char *path, const void *rest, size_t rest_bytes, uint8_t block[SEAL_BYTES]);
int seal_read(const char *path, uint8_t **bytes, size_t *count);

/* Elements of a shape. */
size_t tensor_elements(int32_t rank, const int64_t *shape);

/* "[64, 3, 3, 3]" in a buffer of the caller. */
enum { SHAPE_TEXT = 128 };
const char *shape_text(int32_t rank, const int64_t *shape, char text[SHAPE_TEXT]);

#endif

/* A file of named tensors and attributes: the container of checkpoints, in HDF5.
 *
 * Group and dataset names follow the tensor's name: "weights/layer1.0.conv1.weight" is a dataset in the group
 * "weights". Values are little-endian IEEE floats in row-major order, attributes sit on the root. Each dataset carries
 * an XXH3 checksum of its bytes as the attribute "xxh3". Before the HDF5 file is a block of 512 bytes that says what
 * the file is, its length and its checksum. A file without it, of another length or with another sum is refused before
 * HDF5 sees it. The same tensors and attributes make the same bytes. Any thread, one at a
 * time for each file.
 *
 * Errors are ERROR_FILE and name the path, unless said otherwise. A file that was whole once and is not any more, as
 * far as its length, its checksums and the bounds of its numbers tell, is ERROR_DAMAGED.
 */
#ifndef TESKD_IO_FILE_TENSOR_FILE_H
#define TESKD_IO_FILE_TENSOR_FILE_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TENSOR_FILE_MAX_RANK = 4 };

typedef struct tensor_file tensor_file;

typedef struct {
    char *name; /* without a leading slash */
    dtype type;
    int32_t rank;
    int64_t shape[TENSOR_FILE_MAX_RANK];
} tensor_info;

/* Writing. The file is built in memory (it takes as much as the file will) and goes to a temporary file beside `path`;
 * whatever is at `path` stays until the commit. */
int tensor_file_create(tensor_file **file, const char *path);

/* Adds a tensor of `rank` 0 to 4 dimensions, each at least 1. A name can be used once. */
int tensor_file_write(tensor_file *file, const char *name, dtype type, int32_t rank, const int64_t *shape,
                      const void *data);

int tensor_file_set_int(tensor_file *file, const char *key, int64_t value);
int tensor_file_set_double(tensor_file *file, const char *key, double value);
int tensor_file_set_text(tensor_file *file, const char *key, const char *value);

/* Makes the file durable under its name and frees `*file`, which becomes NULL. The old file stays as `kept`, in place
 * of what is there; NULL: it goes. After a failure, also one of an earlier write, the temporary file is removed and
 * both are untouched. */
int tensor_file_commit(tensor_file **file, const char *kept);

/* Reading. Takes the whole file into memory, without locks (which many cluster file systems lack), and lists the
 * tensors. */
int tensor_file_open(tensor_file **file, const char *path);

/* The tensors in the order of their names; infos belong to the file. */
int32_t tensor_file_count(const tensor_file *file);
const tensor_info *tensor_file_info(const tensor_file *file, int32_t index);

/* NULL when there is no such tensor (no error is set). */
const tensor_info *tensor_file_find(const tensor_file *file, const char *name);

/* Reads a tensor of exactly this shape (else ERROR_SHAPE) and verifies its checksum; converts when it is stored as the
 * other real type. `data` holds garbage after an error. */
int tensor_file_read(tensor_file *file, const char *name, dtype type, int32_t rank, const int64_t *shape, void *data);

/* Whether it has an attribute of that name. */
bool tensor_file_has(const tensor_file *file, const char *key);

/* A number out of its bounds is damage; so is one that is no number. */
int tensor_file_get_int(tensor_file *file, const char *key, int64_t least, int64_t most, int64_t *value);
int tensor_file_get_double(tensor_file *file, const char *key, double least, double most, double *value);

/* The caller frees `*value`. */
int tensor_file_get_text(tensor_file *file, const char *key, char **value);

/* Ends reading, or abandons writing and removes the temporary file. `*file` becomes NULL; it may be NULL already. */
void tensor_file_close(tensor_file **file);

#endif

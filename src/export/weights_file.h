/* A safetensors file of other programs as weights of a network: under the network's names, and finite.
 *
 * PyTorch's wrappers put their own before every name ("module.", "_orig_mod.", "_orig_mod.module."). Of the beginnings
 * that end in a point and that all names share, the one without which most names are the network's is left out.
 * One thread.
 */
#ifndef TESKD_EXPORT_WEIGHTS_FILE_H
#define TESKD_EXPORT_WEIGHTS_FILE_H

#include "io/file/safetensors.h"
#include "run/store.h"

typedef struct {
    const char *path;
    safetensors_file *file;
    size_t wrapper; /* bytes of a name that are left out */
} weights_file;

/* `path` must outlive the file. Errors as of safetensors_open. */
int weights_file_open(weights_file *f, const char *path, const store *network);
void weights_file_close(weights_file *f);

/* The beginning that is left out of every name is the first `wrapper` bytes of this one; NULL where nothing is. */
const char *weights_file_wrapped(const weights_file *f);

/* A tensor's name without the wrapper's part. */
const char *weights_file_name(const weights_file *f, int32_t index);

/* NULL when there is none of this name. */
const safetensors_info *weights_file_find(const weights_file *f, const char *name);

/* The tensor's values. ERROR_DATA names it when one of them is not finite as float32, or its type is none of reals. */
int weights_file_read(const weights_file *f, const safetensors_info *tensor, double *values);

#endif

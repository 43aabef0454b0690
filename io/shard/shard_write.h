/* Writing one shard. It appears under its name when it is whole; equal images make equal bytes. Errors are ERROR_FILE
 * or ERROR_MEMORY and name the file. One thread per shard; several shards at once are fine. */
#ifndef TESKD_IO_SHARD_SHARD_WRITE_H
#define TESKD_IO_SHARD_SHARD_WRITE_H

#include "io/shard/manifest.h"

/* Which shard of what; pointers stay the caller's and valid until the commit. */
typedef struct {
    const char *plan; /* SHARD_ID_BYTES - 1 digits */
    int split;
    int32_t shard, shards, classes;
    char *const *class_ids, *const *class_names; /* [classes] */
} shard_identity;

typedef struct shard_writer shard_writer;

int shard_writer_create(shard_writer **writer, const char *path, const shard_identity *identity);

/* Appends an image: its label, size in bytes and pixels, position and flags are taken from `image`. */
int shard_writer_add(shard_writer *writer, const shard_image *image, const char *name, const void *bytes);

/* Notes the name of an image that is not there, since it cannot be read. */
int shard_writer_leave_out(shard_writer *writer, const char *name);

/* Makes the shard durable, gives it its name and frees `*writer`, which becomes NULL, also on failure. At least one
 * image must have been added. */
int shard_writer_commit(shard_writer **writer);

/* Removes what was written. `*writer` becomes NULL; it may be NULL already. */
void shard_writer_abandon(shard_writer **writer);

#endif

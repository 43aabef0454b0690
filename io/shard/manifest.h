/* manifest.json: what a data set is, and of each shard what its file must be. Errors are ERROR_FILE or ERROR_DATA and
 * name the file. One thread per manifest. */
#ifndef TESKD_IO_SHARD_MANIFEST_H
#define TESKD_IO_SHARD_MANIFEST_H

#include "io/shard/shard.h"

enum { SHARD_SPLITS = 2, SHARD_FILE_BYTES = 32, SHARD_MOST = 100000, SHARD_CLASSES_MOST = 1 << 20 };

/* One shard's file. */
typedef struct {
    int64_t images;
    uint64_t offset, bytes; /* where its images' bytes lie: next to each other, nothing between them */
    uint64_t file_bytes;
    uint64_t checksum; /* XXH3, 64 bits, of all bytes of the file but those of the images, which have their own */
} shard_record;

typedef struct {
    shard_manifest set;
    char plan[SHARD_ID_BYTES]; /* of the packing: which images, in which order, in which shards, made how */
    shard_record *records[SHARD_SPLITS];
} manifest;

int manifest_read(manifest *m, const char *folder);

/* The file appears whole or not at all. */
int manifest_write(const manifest *m, const char *folder);

/* Frees what was read; a cleared one is fine. */
void manifest_close(manifest *m);

/* "train" or "val". */
const char *shard_split_name(int split);

/* "train-00000.h5" */
const char *shard_file_name(int split, int32_t shard, char name[SHARD_FILE_BYTES]);

/* FOLDER/NAME. ERROR_FILE where that is too long. */
int shard_path_join(char path[SHARD_PATH_BYTES], const char *folder, const char *name);

#define SHARD_MANIFEST_NAME "manifest.json"

#endif

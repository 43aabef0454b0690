/* One shard, open: where each of its images lies, checked against the manifest before HDF5 is asked. Errors are
 * ERROR_FILE or ERROR_DATA and name the file, and the dataset or offset. Opening: any thread, in turn; reading: any. */
#ifndef TESKD_IO_SHARD_SHARD_FILE_H
#define TESKD_IO_SHARD_SHARD_FILE_H

#include "io/shard/manifest.h"

#include <time.h>

/* Texts one after the other: text i is the bytes from begins[i] to begins[i + 1]. */
typedef struct {
    uint64_t begins_at, text_at; /* offsets in the file */
    int64_t count;
    uint64_t text_bytes;
} shard_texts;

typedef struct {
    int descriptor;
    char *path;
    shard_record record;
    shard_image *images; /* [record.images], `shard` as it was asked for */
    shard_texts names, left_out;
    uint64_t index_checksum; /* of what it says of its images, their checksums among it */
    struct timespec changed; /* when the file was, as it was opened */
} shard_file;

/* Shard `shard` of a split, of the manifest's data set. Nothing is held after an error. */
int shard_file_open(shard_file *file, const manifest *m, const char *folder, int split, int32_t shard);

/* The same of one that no manifest speaks of yet: what it says of itself goes into file->record. Of the plan, or
 * ERROR_DATA. */
int shard_file_open_unlisted(shard_file *file, const manifest *m, const char *folder, int split, int32_t shard);

/* The image's bytes, checked against its checksum. */
int shard_file_read(const shard_file *file, int64_t index, void *bytes);

/* Text `index`, cut to the room that there is. */
int shard_file_text(const shard_file *file, const shard_texts *texts, int64_t index, char *text, size_t bytes);

/* A cleared one is fine. */
void shard_file_close(shard_file *file);

/* Reads exactly so many bytes. ERROR_DATA where the file ends before. */
int shard_pread(int descriptor, const char *path, uint64_t offset, void *bytes, size_t count);

#endif

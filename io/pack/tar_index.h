/* What a tar archive holds, and where: its members' bytes lie in it as they are, so that they can be read at any place
 * and in any order. One thread per archive. */
#ifndef TESKD_IO_PACK_TAR_INDEX_H
#define TESKD_IO_PACK_TAR_INDEX_H

#include "io/pack/input.h"

/* A part of a file that is a tar archive: all of it, or a member of another one. */
typedef struct {
    const char *path; /* for messages */
    int descriptor;
    uint64_t begin, end;
} tar_range;

/* A regular file in it. */
typedef struct {
    const char *name; /* without a leading "./" */
    uint64_t offset;  /* of its bytes, in the file that the archive is in */
    uint64_t size;
} tar_member;

/* Calls `take` for each regular file, in order, until it fails. ERROR_DATA, with the offset, for what is no tar, is
 * compressed, or ends too early. */
int tar_index(const tar_range *archive, int (*take)(void *context, const tar_member *member), void *context);

/* The whole of one member whose name ends so, of an archive that may be compressed; the caller frees it. `*bytes` is
 * NULL where there is none. It has a zero byte more than `*size`. */
int tar_extract(const char *path, const char *ending, uint8_t **bytes, size_t *size);

#endif

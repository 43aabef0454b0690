/* Shards: compressed images of a data set in few HDF5 files, format 1 (docs/formats.md).
 *
 * DIR/train-00000.h5 ..., DIR/val-00000.h5 ... and DIR/manifest.json. HDF5 is asked for the layout once, when a split
 * is opened; images are then read by pread alone, by any number of threads. Errors are ERROR_FILE (the file system) or
 * ERROR_DATA (the content), and name the file, and the image, dataset or offset in it.
 */
#ifndef TESKD_IO_SHARD_SHARD_H
#define TESKD_IO_SHARD_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARD_VERSION = 1, SHARD_PATH_BYTES = 4096, SHARD_ID_BYTES = 33 };

/* What is known of an image beside its pixels; a bit mask. */
enum {
    SHARD_PNG = 1 << 0,         /* stored as PNG; without it JPEG */
    SHARD_GREY = 1 << 1,        /* one channel */
    SHARD_CMYK = 1 << 2,        /* four channels of ink */
    SHARD_PROGRESSIVE = 1 << 3, /* or interlaced */
    SHARD_RECODED = 1 << 4,     /* not the bytes of the original file */
    SHARD_MISNAMED = 1 << 5,    /* the original's extension says another format */
};

typedef struct {
    uint64_t offset;   /* in its file */
    uint64_t checksum; /* XXH3, 64 bits, of its bytes */
    uint32_t size;     /* bytes */
    int32_t shard;
    int32_t label;
    int32_t height, width;
    uint32_t flags;
    uint64_t position; /* in the order of the split's sources (classes by their ids, in each class images by their
                        * names), whatever order they are stored in; no two images of a split have the same */
} shard_image;

/* What the manifest says of a data set, without opening a shard. */
typedef struct {
    char id[SHARD_ID_BYTES]; /* 32 hexadecimal digits: the same for equal contents */
    int32_t classes;
    char **class_ids;   /* [classes], as class folders are called */
    char **class_names; /* [classes], for people; equal to the ids where no others were given */
    int64_t images[2];  /* training, validation */
    int32_t shards[2];
    uint64_t bytes[2]; /* of all images */
} shard_manifest;

int shard_manifest_read(shard_manifest *manifest, const char *folder);
void shard_manifest_close(shard_manifest *manifest); /* a cleared one is fine */

/* A split, open for reading. */
typedef struct shard_set shard_set;

/* split: 0 training, 1 validation. Every shard must be there, complete, and of the manifest's data set. */
int shard_set_open(shard_set **set, const char *folder, int split);
void shard_set_close(shard_set **set); /* `*set` becomes NULL and may be NULL */

int64_t shard_set_images(const shard_set *set);
const shard_image *shard_set_image(const shard_set *set, int64_t index);

/* The image that comes at a place when they are sorted by position: a training from shards goes by this order, so that
 * it is the same as one from the class folders that were packed. */
int64_t shard_set_ordered(const shard_set *set, int64_t place);
const shard_manifest *shard_set_manifest(const shard_set *set);

/* The image's bytes, as many as its size says, checked against its checksum. Any thread. */
int shard_set_read(const shard_set *set, int64_t index, void *bytes);

/* The name of the image's original file, relative to its split ("n01440764/n01440764_10026.JPEG"), and its shard's
 * path. Read from the file; any thread. */
enum { SHARD_NAME_BYTES = 512 };
int shard_set_name(const shard_set *set, int64_t index, char name[SHARD_NAME_BYTES]);
const char *shard_set_path(const shard_set *set, int32_t shard);

/* Is `path` one of the data set's files? */
bool shard_holds(const char *folder, const char *path);

#endif

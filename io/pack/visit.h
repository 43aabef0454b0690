/* Goes through all images of a data set in shards, with several threads. */
#ifndef TESKD_IO_PACK_VISIT_H
#define TESKD_IO_PACK_VISIT_H

#include "base/log.h"
#include "io/image/decode.h"
#include "io/shard/shard.h"

/* An image whose bytes have the right checksum. */
typedef struct {
    const shard_set *set;
    int split;
    int64_t index;
    const shard_image *image;
    const uint8_t *bytes;
    image_decoder *decoder; /* the thread's */
} visited_image;

typedef struct {
    int threads;
    /* Any thread; NULL: the checksums are all. A failure that is ERROR_DATA or ERROR_FILE is counted, any other ends
     * the visit. */
    int (*visit)(void *context, const visited_image *image);
    void *context;
    const char *doing; /* for the progress: "checking" */
    bool stops;        /* the first failure of any kind ends the visit and is returned */
    logger *log;       /* names what has failed, the first few */
} visit_options;

typedef struct {
    int64_t images, failed;
    uint64_t bytes;
} visit_report;

/* Adds to the report. */
int visit_split(const shard_set *set, int split, const visit_options *options, visit_report *report);

/* For visit_options: decodes the whole image, which has to be of the size that the shard says. */
int visit_decode(void *unused, const visited_image *image);

#endif

/* The way of batches from a data set into the inputs of programs.
 *
 * Where the device's memory is the host's, the loader makes the images. Elsewhere it only says how to make them, and
 * the device does so from bytes. Either it holds the whole set, or the batch is copied while the step before it runs.
 * The images are the same to the bit, before they are rounded to 16 bits.
 */
#ifndef TESKD_SESSION_FEED_H
#define TESKD_SESSION_FEED_H

#include "io/data/loader.h"
#include "session/session.h"

typedef struct feed feed;

/* Valid until the next call on the feed. */
typedef struct {
    program *step;         /* with the batch in its inputs; NULL where this rank has no image */
    int32_t images;        /* this rank's share; 0 is possible in evaluation only */
    int32_t position;      /* of the first image of the share in the epoch's order */
    const int32_t *labels; /* [images] */
} feed_batch;

/* After session_bind. Copies a set that the device holds. Every rank calls it. */
int feed_open(feed **made, session *e, bool training);

/* The next batch will be micro-batch `index` of `epoch`. */
int feed_seek(feed *f, int64_t epoch, int64_t index);

/* Puts the next batch into the inputs of the program that it is for. */
int feed_next(feed *f, feed_batch *batch);

/* Turns the images of the batch in the inputs left to right. */
int feed_mirror(feed *f);

/* What messages call the image at a position of an epoch's order: "image 17 (FILE)". */
int feed_image_text(const feed *f, int64_t epoch, int32_t position, char *text, size_t bytes);

/* How the loader has kept up. */
loader_report feed_describe(const feed *f);

/* `*f` becomes NULL and may be NULL. */
void feed_close(feed **f);

#endif

/* Hands out this rank's shares of micro-batches in the plan's order, made a few ahead by one thread.
 *
 * The stream is endless: after an epoch's last micro-batch comes the next epoch's first. Images are a pure function
 * of (seed, epoch, position in the epoch's order), so they do not depend on the number of ranks or on where one starts.
 */
#ifndef TESKD_IO_DATA_LOADER_H
#define TESKD_IO_DATA_LOADER_H

#include "base/dtype.h"
#include "io/data/batch_plan.h"
#include "io/data/source.h"

#include <stdbool.h>

typedef struct loader loader;

/* What batches hold beside the labels. */
typedef enum {
    LOADER_REAL,    /* the images as the network reads them: cropped, flipped, normalised */
    LOADER_BYTES,   /* the images as they are stored, and the choices by which somebody else makes the above of them */
    LOADER_CHOICES, /* the choices alone, of images that somebody else holds */
} loader_content;

/* Where the images of batches lie. alloc: at least 64-byte aligned, NULL when there is no memory. Called by the
 * thread that opens and closes the loader. */
typedef struct {
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *memory);
    void *context;
} loader_memory;

typedef struct {
    const image_set *set;  /* not owned; must outlive the loader and not change */
    int32_t height, width; /* of the images in batches: the set's, or what those of varying size are scaled to */
    batch_plan plan;       /* of as many images as the data set has */
    uint64_t seed;
    bool shuffle; /* a new permutation each epoch; off: the set's own order */
    bool augment; /* random crop and flip */
    loader_content content;
    dtype real;           /* LOADER_REAL: of the images */
    loader_memory memory; /* all NULL: the loader's own */
} loader_options;

typedef struct {
    void *pixels; /* [images][height][width][3], 64-byte aligned, reals or bytes; NULL with LOADER_CHOICES. The
                   * caller may change them. */
    const int32_t *choices; /* [images][AUGMENT_CHOICE], see io/data/augment.h; NULL with LOADER_REAL. The image is
                             * one of the batch with LOADER_BYTES, of the set with LOADER_CHOICES. */
    const int32_t *labels;  /* [images] */
    micro_batch place;      /* in the plan */
    int64_t epoch, index;   /* of the micro-batch in its epoch */
} loader_batch;

int loader_open(loader **made, const loader_options *options);

/* The next batch will be micro-batch `index` of `epoch`; the one behind an epoch's last is the next epoch's first.
 * Starts the thread anew there. */
int loader_seek(loader *l, int64_t epoch, int64_t index);

/* Waits for the next batch; without an earlier seek it begins with epoch 0. What `batch` points at is valid
 * until the next call on this loader. A failure of the thread is returned here, again at each further call until a
 * seek. */
int loader_next(loader *l, loader_batch *batch);

/* Stops the thread and frees; `*l` becomes NULL and may be NULL. */
void loader_close(loader **l);

#endif

/* Hands out this rank's shares of micro-batches in the plan's order, made a few ahead by threads.
 *
 * The stream is endless: after an epoch's last micro-batch comes the next epoch's first. Images are a pure function
 * of (seed, epoch, position in the epoch's order): the number of ranks or threads and where one starts change nothing.
 */
#ifndef TESKD_IO_DATA_LOADER_H
#define TESKD_IO_DATA_LOADER_H

#include "base/dtype.h"
#include "base/log.h"
#include "io/data/batch_plan.h"
#include "io/data/image_order.h"
#include "io/data/image_sizes.h"
#include "io/data/source.h"
#include "io/image/crop.h"

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
    const image_set *set; /* not owned; must outlive the loader and not change */
    int32_t height,
        width;         /* of the largest images in batches: the set's, or what those of varying size are scaled to */
    image_sizes sizes; /* of images of varying size, by epoch; last 0: height x width in every epoch */
    batch_plan plan;   /* of as many images as the data set has */
    uint64_t seed;
    image_order order;
    bool augment;    /* random crop and flip; without it the whole image or, of those of varying size, the centre */
    crop_range crop; /* of images of varying size */
    int32_t resize;  /* without `augment`, of images of varying size: the shorter side before the centre is taken */
    loader_content content;
    dtype real;           /* LOADER_REAL: of the images */
    loader_memory memory; /* all NULL: the loader's own */
    int32_t threads;      /* at least 1 */
    bool substitutes;     /* a bad image is replaced by another one */
    double bad_limit;     /* share of the images that may be bad */
    const char *path;     /* of the data set, for messages; NULL: none */
    logger *log;          /* for warnings; NULL: none */
} loader_options;

typedef struct {
    void *pixels; /* [images][height][width][3], 64-byte aligned, reals or bytes; NULL with LOADER_CHOICES. The
                   * caller may change them. */
    const int32_t *choices; /* [images][AUGMENT_CHOICE], see io/data/augment.h; NULL with LOADER_REAL. The image is
                             * one of the batch with LOADER_BYTES, of the set with LOADER_CHOICES. */
    const int32_t *labels;  /* [images] */
    micro_batch share;      /* of this rank, in the plan */
    int64_t epoch, index;   /* of the micro-batch in its epoch */
    int32_t height, width;
} loader_batch;

/* How the loader has kept up. */
typedef struct {
    double waited;      /* seconds that loader_next has waited since the loader was opened */
    int64_t bad_images; /* different ones */
} loader_report;

int loader_open(loader **made, const loader_options *options);

/* The next batch will be micro-batch `index` of `epoch`; the one behind an epoch's last is the next epoch's first.
 * Starts the threads anew there. */
int loader_seek(loader *l, int64_t epoch, int64_t index);

/* Waits for the next batch; without an earlier seek it begins with epoch 0. What `batch` points at is valid
 * until the next call on this loader. A failure of a thread is returned here, again at each further call until a
 * seek. */
int loader_next(loader *l, loader_batch *batch);

loader_report loader_describe(loader *l);

/* Stops the threads and frees; `*l` becomes NULL and may be NULL. */
void loader_close(loader **l);

#endif

/* Hands out batches in the epoch's order, made a few steps ahead by one thread.
 *
 * The stream of batches is endless: after an epoch's last step comes the next epoch's first. Pictures are a pure
 * function of (seed, epoch, position in the global order), so they do not depend on the number of ranks or on where one
 * starts.
 */
#ifndef TESKD_IO_LOADER_H
#define TESKD_IO_LOADER_H

#include "io/dataset.h"
#include "io/real.h"

#include <stdbool.h>

typedef struct loader loader;

/* What batches hold beside the labels. */
typedef enum {
    LOADER_REAL,  /* the pictures as the network reads them: cropped, flipped, normalised */
    LOADER_BYTES, /* the pictures as they are stored, and the choices by which somebody else makes the above of them */
    LOADER_CHOICES, /* the choices alone, of pictures that somebody else holds */
} loader_content;

/* Where the pictures of batches lie. alloc: at least 64-byte aligned, NULL when there is no memory. Called by the
 * thread that opens and closes the loader. */
typedef struct {
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *memory);
    void *context;
} loader_memory;

typedef struct {
    const dataset *dataset; /* not owned; must outlive the loader and not change */
    int32_t global_batch;   /* pictures a step over all ranks */
    int32_t rank, size;     /* this process gets the rank-th of `size` contiguous slices of each global batch */
    uint64_t seed;
    bool shuffle;   /* a new permutation each epoch; off: the set's own order. On means training, off evaluation. */
    bool augment;   /* random crop and flip */
    bool drop_last; /* leave out the incomplete last batch */
    loader_content content;
    real_type real;       /* LOADER_REAL: of the pictures */
    loader_memory memory; /* all NULL: the loader's own */
} loader_options;

typedef struct {
    void *pixels; /* [images][height][width][3], 64-byte aligned, reals or bytes; NULL with LOADER_CHOICES. The
                   * caller may change them. */
    const int32_t *choices; /* [images][AUGMENT_CHOICE], see io/augment.h; NULL with LOADER_REAL. The picture is one of
                             * the batch with LOADER_BYTES, of the set with LOADER_CHOICES. */
    const int32_t *labels;  /* [images] */
    int32_t images;         /* this rank's share; 0 is possible in evaluation only */
    int32_t global_images;  /* over all ranks: smaller in the last step of an epoch */
    int32_t position;       /* of the first picture of the share in the epoch's global order */
    int32_t epoch, step;
} loader_batch;

/* ERROR_SETTINGS when a rank would get no picture in training, or when there would be no step at all. */
int loader_open(loader **made, const loader_options *options);

/* Steps of an epoch. */
int32_t loader_steps(const loader *l);

/* The next batch will be `step` (0 to steps; steps is the next epoch's 0) of `epoch`. Starts the thread anew there. */
int loader_seek(loader *l, int32_t epoch, int32_t step);

/* Waits for the next batch; without an earlier seek the first is step 0 of epoch 0. What `batch` points at is valid
 * until the next call on this loader. A failure of the thread is returned here, again at each further call until a
 * seek. */
int loader_next(loader *l, loader_batch *batch);

/* Stops the thread and frees; `*l` becomes NULL and may be NULL. */
void loader_close(loader **l);

#endif

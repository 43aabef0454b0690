/* How the images of an epoch are cut into steps, micro-batches and the ranks' shares. Arithmetic alone; any thread.
 *
 * An epoch is an order of all images. Each step takes the next `batch` of them, the last step what is left. A step is
 * computed in micro-batches of batch / accumulate images, whose gradients are added up; the last step has as many as
 * its images need. The ranks share each micro-batch in contiguous slices, the first of which may have one image more.
 */
#ifndef TESKD_IO_DATA_BATCH_PLAN_H
#define TESKD_IO_DATA_BATCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t images; /* of the set */
    int32_t batch;  /* images per step, over all ranks: a multiple of `accumulate` */
    int32_t accumulate;
    int32_t rank, ranks;
    bool drop_last; /* leave out a last step of fewer images */
    bool training;  /* every rank needs an image of each micro-batch */
} batch_options;

/* Micro-batches of one kind differ in their place in the epoch alone, so that one program serves them all. */
enum { MICRO_BATCH_KINDS = 6 };

typedef struct {
    int32_t kind;          /* 0 to MICRO_BATCH_KINDS - 1 */
    int32_t images;        /* this rank's share; 0 is possible in evaluation only */
    int32_t position;      /* of the share's first image in the epoch's order */
    int32_t global_images; /* of the micro-batch, over all ranks */
    int32_t step_images;   /* of the whole step, over all ranks: what its losses are averaged over */
    bool first, last;      /* within its step */
} micro_batch;

typedef struct {
    batch_options options;
    int64_t steps, micro_batches; /* of an epoch */
} batch_plan;

/* ERROR_SETTINGS, naming train.batch or data.drop_last, where there is no step or a rank would get no image in
 * training.
 */
int batch_plan_make(batch_plan *plan, const batch_options *options);

/* Of step 0 to steps - 1. */
int32_t batch_plan_step_images(const batch_plan *plan, int64_t step);
int32_t batch_plan_step_micro_batches(const batch_plan *plan, int64_t step);

/* The micro-batch with which a step begins is number step * accumulate of its epoch. */
micro_batch batch_plan_at(const batch_plan *plan, int64_t index);

/* The first micro-batch of a kind; false where the epoch has none. Kinds come with the last micro-batch of a step
 * first: its program has all that the others have. */
bool batch_plan_find(const batch_plan *plan, int kind, micro_batch *found);

/* Most images that a share of this rank has, or 1 where none has any: how much memory batches take. */
int32_t batch_plan_largest_share(const batch_plan *plan);

#endif

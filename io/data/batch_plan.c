/* Computes the micro-batches of an epoch. Holds no state; any thread. */
#include "io/data/batch_plan.h"

#include "base/error.h"

/* Of a step of its kind: all but the last step are of the first kind. */
enum { LAST, FIRST, MIDDLE, PLACES };
_Static_assert(2 * PLACES == MICRO_BATCH_KINDS, "whole steps, and one of fewer images");

static int32_t micro_batch_images(const batch_options *o)
{
    return o->batch / o->accumulate;
}

static int64_t whole_steps(const batch_options *o)
{
    return o->images / o->batch;
}

/* Images of the step behind the whole ones. */
static int32_t rest(const batch_options *o)
{
    return o->drop_last ? 0 : (int32_t)(o->images % o->batch);
}

static int32_t parts_of(const batch_options *o, int32_t images)
{
    return (images + micro_batch_images(o) - 1) / micro_batch_images(o);
}

static int check_shares(const batch_options *o)
{
    const int32_t smallest = rest(o) % micro_batch_images(o);
    CHECK(micro_batch_images(o) >= o->ranks, ERROR_SETTINGS, "train.batch = %d gives some of %d ranks no image%s",
          o->batch, o->ranks, o->accumulate > 1 ? " of each micro-batch (train.accumulate)" : "");
    CHECK(smallest == 0 || smallest >= o->ranks, ERROR_SETTINGS,
          "%lld images with train.batch = %d leave a last %s of %d, too few for %d ranks: set data.drop_last = yes or "
          "change train.batch",
          (long long)o->images, o->batch, o->accumulate > 1 ? "micro-batch" : "batch", smallest, o->ranks);
    return 0;
}

static int check_options(const batch_options *o)
{
    CHECK(o->images > 0 && o->images <= INT32_MAX, ERROR_DATA, "%lld images: expected 1 to %d", (long long)o->images,
          INT32_MAX);
    CHECK(o->batch > 0, ERROR_SETTINGS, "train.batch = %d, expected at least 1", o->batch);
    CHECK(o->accumulate > 0 && o->batch % o->accumulate == 0, ERROR_SETTINGS,
          "train.batch = %d is no multiple of train.accumulate = %d", o->batch, o->accumulate);
    CHECK(o->ranks > 0 && o->rank >= 0 && o->rank < o->ranks, ERROR_INTERNAL, "rank %d of %d", o->rank, o->ranks);
    CHECK(!o->drop_last || o->images >= o->batch, ERROR_SETTINGS,
          "data.drop_last = yes leaves no step: train.batch = %d, but there are only %lld images", o->batch,
          (long long)o->images);
    return o->training ? check_shares(o) : 0;
}

int batch_plan_make(batch_plan *plan, const batch_options *options)
{
    TRY(check_options(options));
    plan->options = *options;
    plan->steps = whole_steps(options) + (rest(options) > 0);
    plan->micro_batches = whole_steps(options) * options->accumulate + parts_of(options, rest(options));
    return 0;
}

int32_t batch_plan_step_images(const batch_plan *plan, int64_t step)
{
    return step < whole_steps(&plan->options) ? plan->options.batch : rest(&plan->options);
}

int32_t batch_plan_step_micro_batches(const batch_plan *plan, int64_t step)
{
    return parts_of(&plan->options, batch_plan_step_images(plan, step));
}

/* This rank's slice of images that begin at `start` of the epoch's order. */
static void take_share(const batch_options *o, int64_t start, micro_batch *m)
{
    const int32_t each = m->global_images / o->ranks, more = m->global_images % o->ranks;
    m->images = each + (o->rank < more);
    m->position = (int32_t)start + o->rank * each + (o->rank < more ? o->rank : more);
}

micro_batch batch_plan_at(const batch_plan *plan, int64_t index)
{
    const batch_options *o = &plan->options;
    const int64_t step = index / o->accumulate;
    const int32_t within = (int32_t)(index % o->accumulate), size = micro_batch_images(o);
    const int32_t images = batch_plan_step_images(plan, step), before = within * size;
    micro_batch m = {.global_images = images - before < size ? images - before : size,
                     .step_images = images,
                     .first = within == 0,
                     .last = images - before <= size};
    m.kind = (step < whole_steps(o) ? 0 : PLACES) + (m.last ? LAST : m.first ? FIRST : MIDDLE);
    take_share(o, step * o->batch + before, &m);
    return m;
}

bool batch_plan_find(const batch_plan *plan, int kind, micro_batch *found)
{
    const int64_t step = kind < PLACES ? 0 : plan->steps - 1, place = kind % PLACES;
    const int32_t count = batch_plan_step_micro_batches(plan, step);
    *found = batch_plan_at(plan, step * plan->options.accumulate + (place == LAST ? count - 1 : place == MIDDLE));
    return found->kind == kind;
}

int32_t batch_plan_largest_share(const batch_plan *plan)
{
    int32_t most = 1;
    for (int kind = 0; kind < MICRO_BATCH_KINDS; kind++) {
        micro_batch m;
        if (batch_plan_find(plan, kind, &m) && m.images > most)
            most = m.images;
    }
    return most;
}

/* The plan of an epoch, for all small cases: every image once, in order, shared evenly; kinds that are alike; refusals.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "io/data/batch_plan.h"

static batch_plan of_rank(const batch_options *options, int32_t rank)
{
    batch_plan plan;
    batch_options own = *options;
    own.rank = rank;
    assert_int_equal(batch_plan_make(&plan, &own), 0);
    return plan;
}

/* The ranks' shares lie behind one another from `start` on; returns where they end. */
static int64_t check_shares(const batch_options *options, int64_t index, int64_t start)
{
    for (int32_t rank = 0, before = INT32_MAX; rank < options->ranks; rank++) {
        batch_plan plan = of_rank(options, rank);
        micro_batch m = batch_plan_at(&plan, index);
        assert_int_equal(m.position, start);
        assert_true(m.images <= before && (rank == 0 || m.images >= before - 1));
        assert_true(m.images > 0 || !options->training);
        assert_true(m.images <= batch_plan_largest_share(&plan));
        before = m.images;
        start += m.images;
    }
    return start;
}

/* Equal but for their place, where they are of one kind. */
static void check_kind(const batch_plan *plan, const micro_batch *m)
{
    micro_batch found;
    assert_in_range(m->kind, 0, MICRO_BATCH_KINDS - 1);
    assert_true(batch_plan_find(plan, m->kind, &found));
    assert_true(found.position <= m->position);
    assert_true(found.kind == m->kind && found.images == m->images && found.global_images == m->global_images);
    assert_true(found.step_images == m->step_images && found.first == m->first && found.last == m->last);
}

static int64_t check_step(const batch_options *options, int64_t step, int64_t start)
{
    const batch_plan plan = of_rank(options, 0);
    const int32_t images = batch_plan_step_images(&plan, step), count = batch_plan_step_micro_batches(&plan, step);
    const int64_t begin = start;
    assert_true(images == options->batch || (step == plan.steps - 1 && images < options->batch && images > 0));
    for (int32_t k = 0; k < count; k++) {
        const int64_t index = step * options->accumulate + k;
        const micro_batch m = batch_plan_at(&plan, index);
        assert_true(m.first == (k == 0) && m.last == (k == count - 1) && m.step_images == images);
        assert_true(m.global_images == options->batch / options->accumulate || m.last);
        const int64_t end = check_shares(options, index, start);
        assert_int_equal(end - start, m.global_images);
        start = end;
        check_kind(&plan, &m);
    }
    assert_int_equal(start - begin, images);
    return start;
}

static int count_kinds(const batch_plan *plan)
{
    int kinds = 0;
    for (int kind = 0; kind < MICRO_BATCH_KINDS; kind++) {
        micro_batch m;
        kinds += batch_plan_find(plan, kind, &m);
        assert_true(kind > 0 || plan->options.images < plan->options.batch || m.last);
    }
    return kinds;
}

static void check_epoch(const batch_options *options)
{
    const batch_plan plan = of_rank(options, 0);
    int64_t start = 0, micro_batches = 0;
    bool seen[MICRO_BATCH_KINDS] = {false};
    int kinds = 0;
    for (int64_t step = 0; step < plan.steps; step++) {
        start = check_step(options, step, start);
        micro_batches += batch_plan_step_micro_batches(&plan, step);
    }
    assert_int_equal(micro_batches, plan.micro_batches);
    assert_int_equal(start, options->drop_last ? options->images - options->images % options->batch : options->images);
    for (int64_t i = 0; i < plan.micro_batches; i++)
        seen[batch_plan_at(&plan, i).kind] = true;
    for (int kind = 0; kind < MICRO_BATCH_KINDS; kind++)
        kinds += seen[kind];
    assert_int_equal(kinds, count_kinds(&plan));
}

static void every_small_plan(void **state)
{
    (void)state;
    int made = 0;
    for (int64_t images = 1; images <= 40; images++)
        for (int32_t accumulate = 1; accumulate <= 4; accumulate++)
            for (int32_t batch = accumulate; batch <= 24; batch += accumulate)
                for (int flags = 0; flags < 4; flags++)
                    for (int32_t ranks = 1; ranks <= 4; ranks++) {
                        batch_plan plan;
                        const batch_options options = {.images = images,
                                                       .batch = batch,
                                                       .accumulate = accumulate,
                                                       .ranks = ranks,
                                                       .drop_last = flags & 1,
                                                       .training = flags & 2};
                        if (batch_plan_make(&plan, &options) < 0)
                            continue;
                        check_epoch(&options);
                        made++;
                    }
    assert_true(made > 5000);
}

static void refuse(batch_options options, int code, const char *first, const char *second)
{
    batch_plan plan;
    assert_int_equal(batch_plan_make(&plan, &options), code);
    if (!strstr(error_message(), first) || !strstr(error_message(), second))
        fail_msg("'%s' and '%s' are not in: %s", first, second, error_message());
}

static void refusals(void **state)
{
    (void)state;
    const batch_options fits = {.images = 53, .batch = 10, .accumulate = 1, .ranks = 4, .training = true};
    batch_options o = fits;
    refuse(o, ERROR_SETTINGS, "last batch of 3, too few for 4 ranks", "data.drop_last");
    o.accumulate = 2;
    refuse(o, ERROR_SETTINGS, "last micro-batch of 3", "train.batch");
    o = fits;
    o.batch = 3;
    refuse(o, ERROR_SETTINGS, "train.batch = 3", "4 ranks");
    o.batch = 12;
    o.accumulate = 4;
    refuse(o, ERROR_SETTINGS, "4 ranks", "train.accumulate");
    o.accumulate = 5;
    refuse(o, ERROR_SETTINGS, "train.batch = 12", "no multiple");
    o = fits;
    o.batch = 0;
    refuse(o, ERROR_SETTINGS, "train.batch = 0", "at least 1");
    o.batch = 54;
    o.drop_last = true;
    refuse(o, ERROR_SETTINGS, "data.drop_last", "53 images");
    o = fits;
    o.images = 0;
    refuse(o, ERROR_DATA, "0 images", "expected");
    o.images = INT64_C(1) << 31;
    refuse(o, ERROR_DATA, "2147483648 images", "expected");
}

/* What is dropped needs no share for each rank. */
static void dropped_images_are_not_shared(void **state)
{
    (void)state;
    batch_plan plan;
    const batch_options options = {
        .images = 53, .batch = 20, .accumulate = 2, .ranks = 4, .drop_last = true, .training = true};
    assert_int_equal(batch_plan_make(&plan, &options), 0);
    assert_int_equal(plan.steps, 2);
    assert_int_equal(plan.micro_batches, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_small_plan), cmocka_unit_test(refusals),
                                       cmocka_unit_test(dropped_images_are_not_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

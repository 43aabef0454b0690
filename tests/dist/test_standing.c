/* Which of several ranks is said to hang, and in what words. */
#include "dist/standing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 3 };

typedef struct {
    hang_watch watch;
    watched_rank rank[SIZE];
    uint64_t changes;
} table;

static void put(table *t, int rank, rank_phase phase, bool waits, int64_t step, double now)
{
    const rank_standing s = {.entered = (int32_t)phase,
                             .waits = waits,
                             .epoch = 1,
                             .step = step,
                             .changes = ++t->changes,
                             .looks = t->rank[rank].standing.looks};
    hang_watch_note(&t->watch, &t->rank[rank], &s, now);
}

/* A heartbeat of a rank that stands as before. */
static void beat(table *t, int rank, bool looks, double now)
{
    rank_standing s = t->rank[rank].standing;
    s.looks += looks;
    hang_watch_note(&t->watch, &t->rank[rank], &s, now);
}

static int blamed(const table *t, double now, const char *expected_setting)
{
    double limit;
    const char *setting = "";
    const int rank = hang_watch_find(&t->watch, t->rank, SIZE, now, &limit, &setting);
    if (rank >= 0 && expected_setting)
        assert_string_equal(setting, expected_setting);
    return rank;
}

static table begin(phase_limits limits)
{
    table t = {.watch.limits = limits};
    for (int r = 0; r < SIZE; r++)
        put(&t, r, PHASE_START, false, 0, 0);
    return t;
}

/* All in step 2, which began at 10 s. */
static table in_step(phase_limits limits)
{
    table t = begin(limits);
    for (int64_t step = 1; step <= 2; step++)
        for (int r = 0; r < SIZE; r++)
            put(&t, r, PHASE_COMPUTE, false, step, 5 * (double)step);
    return t;
}

static void nobody_is_watched_without_limits(void **state)
{
    (void)state;
    table t = begin((phase_limits){0});
    assert_int_equal(blamed(&t, 1e9, NULL), -1);
}

static void the_start_has_a_limit_of_its_own(void **state)
{
    (void)state;
    table t = begin((phase_limits){.start = 100, .step = 3, .checkpoint = 5});
    assert_int_equal(blamed(&t, 99, NULL), -1);
    put(&t, 0, PHASE_START, true, 0, 50);
    put(&t, 2, PHASE_START, true, 0, 50);
    assert_int_equal(blamed(&t, 101, "dist.timeout_start"), 1);
}

static void who_does_not_wait_is_to_blame(void **state)
{
    (void)state;
    table t = in_step((phase_limits){.start = 100, .step = 3, .checkpoint = 5});
    put(&t, 0, PHASE_COMPUTE, true, 2, 11);
    put(&t, 1, PHASE_COMPUTE, true, 2, 11);
    assert_int_equal(blamed(&t, 12.9, NULL), -1);
    assert_int_equal(blamed(&t, 13.1, "dist.timeout_step"), 2);
}

static void who_waits_without_looking_is_to_blame(void **state)
{
    (void)state;
    table t = in_step((phase_limits){.start = 100, .step = 10, .checkpoint = 5});
    for (int r = 0; r < SIZE; r++)
        put(&t, r, PHASE_COMPUTE, true, 2, 11 + r);
    for (double now = 14; now < 23; now++)
        for (int r = 0; r < SIZE; r++)
            beat(&t, r, r != 2, now);
    assert_int_equal(blamed(&t, 24, "dist.timeout_step"), 2);
}

static void who_is_behind_is_to_blame(void **state)
{
    (void)state;
    table t = in_step((phase_limits){.start = 100, .step = 3, .checkpoint = 5});
    put(&t, 0, PHASE_COMPUTE, false, 3, 11);
    put(&t, 2, PHASE_COMPUTE, false, 3, 11);
    assert_int_equal(blamed(&t, 14, NULL), 1);
}

/* The one that all wait for writes a checkpoint, which may take longer than a step. */
static void the_limit_is_that_of_the_blamed(void **state)
{
    (void)state;
    table t = in_step((phase_limits){.start = 100, .step = 3, .checkpoint = 50});
    put(&t, 0, PHASE_CHECKPOINT, false, 2, 11);
    put(&t, 1, PHASE_COMPUTE, true, 2, 11);
    put(&t, 2, PHASE_COMPUTE, true, 2, 11);
    assert_int_equal(blamed(&t, 60, NULL), -1);
    assert_int_equal(blamed(&t, 62, "dist.timeout_checkpoint"), 0);
}

static void limits_follow_from_the_first_steps(void **state)
{
    (void)state;
    table t = in_step((phase_limits){.start = 100});
    assert_int_equal(blamed(&t, 10 + 119, NULL), -1);
    assert_true(blamed(&t, 10 + 121, "dist.timeout_step") >= 0);
    for (int r = 0; r < SIZE; r++)
        put(&t, r, PHASE_COMPUTE, false, 3, 10 + 30);
    assert_int_equal(blamed(&t, 40 + 599, NULL), -1);
    assert_true(blamed(&t, 40 + 601, NULL) >= 0);
}

static void a_standing_is_told_in_words(void **state)
{
    (void)state;
    char text[STANDING_TEXT_BYTES];
    standing_text(&(rank_standing){.entered = PHASE_NONE, .epoch = 1, .step = 1}, text);
    assert_string_equal(text, "");
    standing_text(&(rank_standing){.entered = PHASE_START, .waits = true}, text);
    assert_string_equal(text, ", before the first step (start)");
    standing_text(&(rank_standing){.entered = PHASE_COMPUTE, .waits = true, .epoch = 3, .step = 17}, text);
    assert_string_equal(text, ", in epoch 3, step 17 (all_reduce)");
    standing_text(&(rank_standing){.entered = PHASE_EVALUATE, .waits = true, .epoch = 3, .step = 17}, text);
    assert_string_equal(text, ", in epoch 3, step 17 (evaluate)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_watched_without_limits),   cmocka_unit_test(the_start_has_a_limit_of_its_own),
        cmocka_unit_test(who_does_not_wait_is_to_blame),      cmocka_unit_test(who_waits_without_looking_is_to_blame),
        cmocka_unit_test(who_is_behind_is_to_blame),          cmocka_unit_test(the_limit_is_that_of_the_blamed),
        cmocka_unit_test(limits_follow_from_the_first_steps), cmocka_unit_test(a_standing_is_told_in_words),
    };
    return cmocka_run_group_tests_name("standing", tests, NULL, NULL);
}

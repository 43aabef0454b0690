/* How a preflight pairs hosts and which of them it names, on findings that are given. */
#include "tools/preflight/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_HOSTS = 9 };

static int nothing(const preflight *p, finding *mine)
{
    (void)p, (void)mine;
    return 0;
}

/* A partner has this host as its own, and in all rounds together each meets each once. */
static void every_pair_meets_once(void **state)
{
    (void)state;
    for (int hosts = 2; hosts <= MOST_HOSTS; hosts++) {
        int met[MOST_HOSTS][MOST_HOSTS] = {{0}};
        for (int round = 0; round < hosts - 1 + hosts % 2; round++)
            for (int host = 0; host < hosts; host++) {
                const int partner = preflight_partner(host, round, hosts);
                assert_in_range(partner + 1, 0, hosts);
                assert_int_not_equal(partner, host);
                if (partner < 0)
                    continue;
                assert_int_equal(preflight_partner(partner, round, hosts), host);
                met[host][partner]++;
            }
        for (int a = 0; a < hosts; a++)
            for (int b = 0; b < hosts; b++)
                assert_int_equal(met[a][b], a != b);
    }
}

static void typical_is_what_half_reach(void **state)
{
    (void)state;
    assert_true(preflight_typical((double[]){118, 2000}, 2, true) == 2000);
    assert_true(preflight_typical((double[]){118, 2000}, 2, false) == 118);
    assert_true(preflight_typical((double[]){NAN, 3, 1, NAN, 2}, 5, true) == 2);
    assert_true(isnan(preflight_typical((double[]){NAN}, 1, true)));
}

static void judge_values(const preflight_check *check, const double *values, const verdict *wanted, int ranks)
{
    finding found[MOST_HOSTS] = {{0}};
    for (int i = 0; i < ranks; i++) {
        found[i] = (finding){.verdict = isnan(values[i]) ? VERDICT_NONE : VERDICT_FINE, .value = values[i]};
        snprintf(found[i].text, sizeof found[i].text, "found");
    }
    assert_int_equal(preflight_judge(check, found, ranks), 0);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(found[i].verdict, wanted[i]);
        assert_int_equal(found[i].problem[0] != '\0', wanted[i] >= VERDICT_NOTE);
    }
}

static void slow_hosts_are_named(void **state)
{
    (void)state;
    const preflight_check
        more = {.name = "sends", .unit = "MB/s", .run = nothing, .compare = COMPARE_MORE, .limit = 0.5},
        less = {.name = "latency", .unit = "us", .run = nothing, .compare = COMPARE_LESS, .limit = 5},
        near = {.name = "clock", .unit = "ms", .run = nothing, .compare = COMPARE_NEAR, .limit = 1000};
    judge_values(&more, (double[]){2000, 118}, (verdict[]){VERDICT_FINE, VERDICT_FAULT}, 2);
    judge_values(&more, (double[]){2000, 1001, 999, 2100, NAN},
                 (verdict[]){VERDICT_FINE, VERDICT_FINE, VERDICT_FAULT, VERDICT_FINE, VERDICT_NONE}, 5);
    judge_values(&less, (double[]){20, 99, 101}, (verdict[]){VERDICT_FINE, VERDICT_FINE, VERDICT_FINE}, 3);
    judge_values(&less, (double[]){20, 21, 106}, (verdict[]){VERDICT_FINE, VERDICT_FINE, VERDICT_FAULT}, 3);
    judge_values(&near, (double[]){0, 3, -1500}, (verdict[]){VERDICT_FINE, VERDICT_FINE, VERDICT_FAULT}, 3);
}

/* The odd one out is named, also where it is rank 0. */
static void other_texts_are_named(void **state)
{
    (void)state;
    const char *const texts[] = {"old", "new", "", "new"};
    preflight_check check = {.name = "data", .run = nothing, .compare = COMPARE_TEXT};
    for (int only_note = 0; only_note < 2; only_note++) {
        finding found[4] = {{0}};
        check.only_note = only_note;
        for (int i = 0; i < 4; i++) {
            found[i].verdict = texts[i][0] ? VERDICT_FINE : VERDICT_NONE;
            snprintf(found[i].text, sizeof found[i].text, "%s", texts[i]);
        }
        assert_int_equal(preflight_judge(&check, found, 4), 0);
        assert_int_equal(found[0].verdict, only_note ? VERDICT_NOTE : VERDICT_FAULT);
        assert_string_equal(found[0].problem, "rank 1 has another: new");
        assert_int_equal(found[1].verdict, VERDICT_FINE);
        assert_int_equal(found[2].verdict, VERDICT_NONE);
    }
}

static void sums_travel_twice(void **state)
{
    (void)state;
    const sum_curve curve = {.ranks = 4, .seconds = {[4] = 0.5}};
    assert_true(fabs(preflight_sum_rate(&curve, 4) - 1.5 * (64 << 20) / 0.5 / 1e6) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_pair_meets_once),
                                       cmocka_unit_test(typical_is_what_half_reach),
                                       cmocka_unit_test(slow_hosts_are_named), cmocka_unit_test(other_texts_are_named),
                                       cmocka_unit_test(sums_travel_twice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

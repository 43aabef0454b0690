/* The model of a step on many GPUs, at its limits and against values worked out by hand; and the step that is taken
 * from settings. */
#include "base/error.h"
#include "base/settings.h"
#include "tools/plan/model.h"
#include "tools/plan/step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const double fine = 1e-12;

static void near(double value, double expected, double bound)
{
    if (!(fabs(value - expected) <= bound))
        fail_msg("%.12g, expected %.12g within %g", value, expected, bound);
}

static plan_cluster cluster_of(int hosts, int gpus)
{
    return (plan_cluster){.hosts = hosts,
                          .gpus = gpus,
                          .inside = 100e9,
                          .net = 10e9,
                          .net_share = 0.8,
                          .hop_seconds = 10e-6,
                          .start_seconds = 20e-6,
                          .noise = 0.03,
                          .pattern = PATTERN_TREE};
}

/* 100 ms, of which the updates are the last 5; two buckets of 40 MB. */
static plan_sum two_buckets[] = {{.bytes = 40e6, .at = 0.5}, {.bytes = 40e6, .at = 0.95}};
static const plan_timeline two = {.seconds = 0.1, .updates = 0.95, .sums = two_buckets, .n_sums = 2};

static double step_of(const plan_timeline *step, plan_cluster c)
{
    return plan_predict(step, &c, NULL).step;
}

static void one_gpu_sums_nothing(void **state)
{
    (void)state;
    const plan_cluster c = cluster_of(1, 1);
    const plan_time t = plan_predict(&two, &c, NULL);
    near(t.step, 0.1, fine);
    near(t.straggling, 0, fine);
    near(t.exposed, 0, fine);
}

static void a_free_network_costs_nothing(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(64, 8);
    c.net = c.inside = INFINITY;
    c.hop_seconds = c.start_seconds = c.noise = 0;
    near(step_of(&two, c), 0.1, fine);
}

/* 2 x 3/4 x 40 MB at 8 GB/s are 7.5 ms, four hops 0.04 ms, the start 0.02 ms. */
static void a_sum_takes_what_its_parts_take(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(4, 8);
    near(plan_all_reduce(&c, 40e6), 7.5e-3 + 4e-5 + 2e-5, fine);
    c.pattern = PATTERN_RING;
    near(plan_all_reduce(&c, 40e6), 7.5e-3 + 62e-5 + 2e-5, fine);
    c.pattern = PATTERN_HOST_RING;
    near(plan_all_reduce(&c, 40e6), 7.5e-3 + 6e-5 + 2e-5, fine);
}

/* Inside one host: 2 x 7/8 x 40 MB at 100 GB/s, and no hop through the network, however slow that is. */
static void one_host_uses_no_network(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(1, 8);
    c.net = 1;
    c.hop_seconds = 1;
    near(plan_all_reduce(&c, 40e6), 7e-4 + 2e-5, fine);
    near(plan_bytes_sent(&c, 40e6), 0, fine);
}

/* The first bucket is done long before the second begins at 95 ms, which is all that shows. */
static void what_the_backward_covers_does_not_show(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(4, 8);
    double ends[2];
    c.noise = 0;
    const double sum = plan_all_reduce(&c, 40e6);
    const plan_time t = plan_predict(&two, &c, ends);
    near(ends[0], 0.05 + sum, fine);
    near(ends[1], 0.095 + sum, fine);
    near(t.exposed, sum, fine);
    near(t.step, 0.1 + sum, fine);
    plan_sum early[] = {{.bytes = 40e6, .at = 0.5}, {.bytes = 40e6, .at = 0.6}};
    const plan_timeline hidden = {.seconds = 0.1, .updates = 0.95, .sums = early, .n_sums = 2};
    near(plan_predict(&hidden, &c, NULL).exposed, 0, fine);
}

/* One sum after the other: two of 52 ms that begin at 50 ms end at 154 ms. */
static void sums_queue(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(4, 8);
    double ends[2];
    c.noise = 0;
    c.net = 1.5 * 40e6 / 0.8 / 52e-3;
    c.hop_seconds = c.start_seconds = 0;
    const plan_time t = plan_predict(&two, &c, ends);
    near(ends[1], 0.154, fine);
    near(t.step, 0.154 + 0.005, fine);
}

/* Statistics wait for themselves and for the bucket before them; all that follows is later by that. */
static void statistics_hold_the_launches_up(void **state)
{
    (void)state;
    plan_sum sums[] = {{.bytes = 40e6, .at = 0.5},
                       {.bytes = 1e3, .at = 0.5, .kind = SUM_STATISTICS},
                       {.bytes = 1e3, .at = 1, .kind = SUM_STATISTICS}};
    const plan_timeline step = {.seconds = 0.1, .updates = 0.9, .sums = sums, .n_sums = 3};
    plan_cluster c = cluster_of(4, 8);
    c.noise = 0;
    const double first = plan_all_reduce(&c, 40e6) + plan_all_reduce(&c, 1e3);
    near(plan_predict(&step, &c, NULL).exposed, first + plan_all_reduce(&c, 1e3), fine);
}

static void more_hosts_or_a_slower_network_are_never_faster(void **state)
{
    (void)state;
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        double before = 0;
        for (int hosts = 1; hosts <= 1024; hosts *= 2) {
            plan_cluster c = cluster_of(hosts, 8), slow = c;
            c.pattern = slow.pattern = (sum_pattern)pattern;
            slow.net /= 2;
            assert_true(step_of(&two, c) >= before);
            assert_true(step_of(&two, slow) >= step_of(&two, c));
            before = step_of(&two, c);
        }
    }
}

/* 3 % of noise on 64 hosts: the slowest is sqrt(2 ln 64) = 2.884 deviations late. */
static void the_slowest_host_counts(void **state)
{
    (void)state;
    plan_cluster c = cluster_of(64, 8);
    near(plan_predict(&two, &c, NULL).straggling, 0.1 * 0.03 * 2.884, 1e-6);
}

/* ---- the step ---- */

static plan_step built_step(const char *const *changes, const plan_request *wanted)
{
    settings c;
    plan_step step;
    settings_default(&c);
    for (; *changes; changes++)
        assert_int_equal(settings_set(&c, *changes), 0);
    if (plan_step_build(&step, &c, wanted) < 0)
        fail_msg("%s", error_message());
    return step;
}

static double bytes_of(const plan_step *step, plan_sum_kind kind)
{
    double bytes = 0;
    for (int i = 0; i < step->timeline.n_sums; i++)
        bytes += step->timeline.sums[i].kind == kind ? step->timeline.sums[i].bytes : 0;
    return bytes;
}

static int count_of(const plan_step *step, plan_sum_kind kind)
{
    int count = 0;
    for (int i = 0; i < step->timeline.n_sums; i++)
        count += step->timeline.sums[i].kind == kind;
    return count;
}

/* Plain cifarresnet8 of width 16: every weight travels once, whatever the buckets; halved, half the bytes. */
static void every_gradient_travels_once(void **state)
{
    (void)state;
    const char *changes[] = {"model.network=cifarresnet8", "model.method=plain", NULL};
    plan_request wanted = {.gpu_batch = 4, .gpus = 8, .buckets = {.first = 1 << 30, .most = 1 << 30, .last = 1 << 30}};
    plan_step whole = built_step(changes, &wanted);
    assert_int_equal(count_of(&whole, SUM_BUCKET), 1);
    wanted.buckets = (bucket_sizes){.first = 1, .most = 1, .last = 1};
    plan_step pieces = built_step(changes, &wanted);
    wanted.halved = true;
    plan_step halved = built_step(changes, &wanted);
    assert_true(count_of(&pieces, SUM_BUCKET) > 10);
    near(bytes_of(&pieces, SUM_BUCKET), bytes_of(&whole, SUM_BUCKET), 0);
    near(bytes_of(&pieces, SUM_BUCKET), pieces.gradient_bytes, 0);
    near(halved.gradient_bytes, pieces.gradient_bytes / 2, 0);
    near(whole.gradient_bytes, 4 * 0.32e6, 0.02e6); /* docs/performance.md: 0.32 M weights */
    plan_step_free(&whole);
    plan_step_free(&pieces);
    plan_step_free(&halved);
}

static void sums_come_in_order_and_before_the_updates(void **state)
{
    (void)state;
    const char *changes[] = {"model.network=cifarresnet8", NULL};
    const plan_request wanted = {
        .gpu_batch = 4, .gpus = 8, .buckets = {.first = 100000, .most = 100000, .last = 100000}};
    plan_step step = built_step(changes, &wanted);
    const plan_timeline *t = &step.timeline;
    for (int i = 0; i < t->n_sums; i++) {
        assert_true(i == 0 || t->sums[i].at >= t->sums[i - 1].at);
        assert_true(t->sums[i].kind != SUM_BUCKET || t->sums[i].at <= t->updates);
    }
    assert_true(t->updates > 0.5 && t->updates < 1);
    assert_int_equal(count_of(&step, SUM_STATISTICS), 1);
    near(t->sums[t->n_sums - 1].at, 1, fine);
    plan_step_free(&step);
}

/* Two sums per layer, and no averaging of running statistics, which are the same on all ranks then. */
static void synchronised_normalisation_is_counted(void **state)
{
    (void)state;
    const char *changes[] = {"model.network=cifarresnet8", "model.method=plain", "run.sync_bn=yes", NULL};
    const plan_request wanted = {
        .gpu_batch = 4, .gpus = 8, .buckets = {.first = 1 << 30, .most = 1 << 30, .last = 1 << 30}};
    plan_step step = built_step(changes, &wanted);
    assert_int_equal(count_of(&step, SUM_STATISTICS), 2 * 12);
    plan_step_free(&step);
}

/* Of four micro-batches the last one's backward alone covers sums. */
static void accumulated_gradients_are_summed_once(void **state)
{
    (void)state;
    const char *changes[] = {"model.network=cifarresnet8", "train.accumulate=4", "train.batch=128", NULL};
    const plan_request wanted = {
        .gpu_batch = 16, .gpus = 8, .buckets = {.first = 1 << 30, .most = 1 << 30, .last = 1 << 30}};
    plan_step step = built_step(changes, &wanted);
    assert_int_equal(step.micro_batch, 4);
    assert_int_equal(count_of(&step, SUM_BUCKET), 1);
    assert_true(step.timeline.sums[0].at > 0.75);
    plan_step_free(&step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_gpu_sums_nothing),
        cmocka_unit_test(a_free_network_costs_nothing),
        cmocka_unit_test(a_sum_takes_what_its_parts_take),
        cmocka_unit_test(one_host_uses_no_network),
        cmocka_unit_test(what_the_backward_covers_does_not_show),
        cmocka_unit_test(sums_queue),
        cmocka_unit_test(statistics_hold_the_launches_up),
        cmocka_unit_test(more_hosts_or_a_slower_network_are_never_faster),
        cmocka_unit_test(the_slowest_host_counts),
        cmocka_unit_test(every_gradient_travels_once),
        cmocka_unit_test(sums_come_in_order_and_before_the_updates),
        cmocka_unit_test(synchronised_normalisation_is_counted),
        cmocka_unit_test(accumulated_gradients_are_summed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

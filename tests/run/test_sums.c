/* Which sums over the ranks a run starts, and what is said of the time they cost. A reduction of the test's own counts
 * and takes its time; it adds nothing, as with one rank. */
#include "base/clock.h"
#include "base/error.h"
#include "small_step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

typedef struct {
    reduction base;
    int started, finished, summed, advanced; /* calls */
    size_t elements;                         /* of what was started */
    long start_us, finish_us, sum_us;        /* what a call takes */
} slow_sums;

static int start(reduction *self, void *data, size_t count, comm_dtype type)
{
    slow_sums *s = (slow_sums *)self;
    (void)data, (void)type;
    s->started++;
    s->elements += count;
    clock_sleep_us(s->start_us);
    return 0;
}

static int finish(reduction *self)
{
    slow_sums *s = (slow_sums *)self;
    s->finished++;
    clock_sleep_us(s->finish_us);
    return 0;
}

static int sum(reduction *self, void *data, size_t count, comm_dtype type)
{
    slow_sums *s = (slow_sums *)self;
    (void)data, (void)count, (void)type;
    s->summed++;
    clock_sleep_us(s->sum_us);
    return 0;
}

static int progress(reduction *self)
{
    ((slow_sums *)self)->advanced++;
    return 0;
}

static int nothing(reduction *self)
{
    (void)self;
    return 0;
}

static const reduction_ops slow_ops = {
    .name = "slow", .start = start, .finish = finish, .sum = sum, .progress = progress, .synchronize = nothing};

enum { PLACES = 3 };

/* The programs of a step's micro-batches: first, middle, last. */
typedef struct {
    small_step small; /* its device and options */
    slow_sums sums;
    store tensors;
    runtime run;
    program *part[PLACES];
} accumulated_step;

static const micro_batch_place places[PLACES] = {MICRO_BATCH_FIRST, MICRO_BATCH_MIDDLE, MICRO_BATCH_LAST};

static void build(accumulated_step *a, int place, bool sync_bn)
{
    graph g;
    model m;
    const step_shape shape = {.training = true,
                              .sync_bn = sync_bn,
                              .batch = SMALL_BATCH,
                              .global_batch = SMALL_BATCH,
                              .loss_batch = PLACES * SMALL_BATCH,
                              .place = places[place]};
    graph_init(&g, a->small.device->ops->real);
    MUST(step_build_training(&g, &m, &a->small.options, &shape));
    model_free(&m);
    MUST(place == 0 ? store_open(&a->tensors, a->small.device, &g) : store_add(&a->tensors, &g));
    MUST(runtime_add(&a->run, &g, &a->part[place]));
}

static void open_step(accumulated_step *a, bool sync_bn)
{
    *a = (accumulated_step){.sums = {.base = {&slow_ops}}};
    small_step_open(&a->small, &(small_settings){.teskd = true}, open_reference);
    runtime_open(&a->run, &(runtime_options){.device = a->small.device,
                                             .tensors = &a->tensors,
                                             .reducer = &a->sums.base,
                                             .ranks = 1,
                                             .buckets = {.most = 20000},
                                             .average_statistics = !sync_bn});
    for (int place = 0; place < PLACES; place++)
        build(a, place, sync_bn);
    MUST(runtime_bind(&a->run));
}

/* On black images of class 0. */
static void run_once(accumulated_step *a, program *p)
{
    for (int i = 0; i < p->n_inputs; i++)
        memset(p->inputs[i].memory, 0, p->inputs[i].bytes);
    MUST(program_run(&a->run, p));
}

static void close_step(accumulated_step *a)
{
    runtime_close(&a->run);
    store_close(&a->tensors);
    small_step_close(&a->small);
}

/* One bucket's start each, and one for the running statistics; however many micro-batches there are. */
static void accumulated_gradients_are_reduced_once(void **state)
{
    accumulated_step a;
    (void)state;
    open_step(&a, false);
    for (int place = 0; place < PLACES - 1; place++) {
        run_once(&a, a.part[place]);
        assert_int_equal(a.sums.started + a.sums.finished + a.sums.summed, 0);
    }
    run_once(&a, a.part[PLACES - 1]);
    const program *last = a.part[PLACES - 1];
    const size_t real = dtype_bytes(a.small.device->ops->real);
    assert_true(last->n_buckets > 4);
    assert_int_equal(a.sums.started, last->n_buckets + 1);
    assert_int_equal(a.sums.finished, 2);
    assert_int_equal(a.sums.elements, (last->plan.arena_bytes[KIND_GRADIENT] + a.tensors.statistics_bytes) / real);
    close_step(&a);
}

/* Of all runs since the last look, and none of them twice. */
static void exposed_time_is_measured(void **state)
{
    enum { US = 2000, RUNS = 2 };
    accumulated_step a;
    exposed_time exposed;
    (void)state;
    open_step(&a, false);
    program *last = a.part[PLACES - 1];
    run_once(&a, last);
    MUST(runtime_exposed(&a.run, &exposed));

    a.sums.finish_us = US;
    for (int i = 0; i < RUNS; i++)
        run_once(&a, last);
    MUST(runtime_exposed(&a.run, &exposed));
    assert_true(exposed.waiting >= 1e-6 * US * 2 * RUNS); /* gradients, statistics */
    MUST(runtime_exposed(&a.run, &exposed));
    assert_true(exposed.waiting == 0 && exposed.advancing == 0);

    a.sums.finish_us = 0;
    a.sums.start_us = US;
    run_once(&a, last);
    MUST(runtime_exposed(&a.run, &exposed));
    assert_true(exposed.advancing >= 1e-6 * US * (last->n_buckets + 1));
    close_step(&a);
}

/* The sums of synchronised batch normalisation are waited for where they are made. */
static void synchronised_sums_are_exposed(void **state)
{
    enum { US = 500 };
    accumulated_step a;
    exposed_time exposed;
    (void)state;
    open_step(&a, true);
    a.sums.sum_us = US;
    run_once(&a, a.part[0]);
    MUST(runtime_exposed(&a.run, &exposed));
    assert_true(a.sums.summed > 10 && a.sums.started == 0);
    assert_true(exposed.waiting >= 1e-6 * US * a.sums.summed);
    close_step(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accumulated_gradients_are_reduced_once),
        cmocka_unit_test(exposed_time_is_measured),
        cmocka_unit_test(synchronised_sums_are_exposed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

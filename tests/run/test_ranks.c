/* The joint loss is defined on the global batch: any number of ranks must get the gradients, the weights and the
 * running statistics of one rank with all the images. Started under mpirun; each rank computes both. */
#include "base/error.h"
#include "run/look.h"
#include "small_step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
    comm *ranks;
    if (comm_open(&ranks, NULL) < 0)
        fail_msg("%s", error_message());
    *state = ranks;
    return 0;
}

static int teardown(void **state)
{
    comm_close(*state);
    return 0;
}

static void assert_same_values(const char *name, const double *a, const double *b, int64_t count, double floor)
{
    double difference = 0, size = floor * floor;
    for (int64_t i = 0; i < count; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += a[i] * a[i];
    }
    if (!(difference <= 1e-22 * size))
        fail_msg("%s differs by %g of %g", name, sqrt(difference), sqrt(size));
}

static void check_gradients(const small_step *alone, const small_step *shared)
{
    for (value_id id = 1; id < alone->step->step.n_values; id++) {
        const graph_value *value = &alone->step->step.values[id];
        if (value->desc.kind != KIND_GRADIENT)
            continue;
        double *a = small_step_value(alone, alone->step, value->name, NULL);
        double *b = small_step_value(shared, shared->step, value->name, NULL);
        assert_same_values(value->name, a, b, tensor_count(&value->desc), 0.01);
        free(a);
        free(b);
    }
}

static void check_store(const small_step *alone, const small_step *shared)
{
    for (uint32_t i = 0; i < alone->tensors.n_entries; i++) {
        const store_entry *entry = &alone->tensors.entries[i];
        if (!store_is_saved(entry))
            continue;
        double *a = small_step_tensor(alone, entry->name), *b = small_step_tensor(shared, entry->name);
        assert_same_values(entry->name, a, b, tensor_count(&entry->desc), 0.01);
        free(a);
        free(b);
    }
}

/* A loss of this rank is its share of the sum. */
static void check_losses(comm *ranks, const small_step *alone, const small_step *shared)
{
    static const char *const names[] = {"cross_entropy/teacher", "kd/student3", "feature/student1", "top_k/student2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t count;
        double *a = small_step_value(alone, alone->step, names[i], &count);
        double *b = small_step_value(shared, shared->step, names[i], NULL);
        assert_int_equal(comm_all_reduce(ranks, b, count, COMM_F64), 0);
        assert_same_values(names[i], a, b, (int64_t)count, 0);
        free(a);
        free(b);
    }
}

static void check_ranks(comm *ranks, const small_settings *settings)
{
    small_step alone, shared;
    small_settings with_ranks = *settings;
    with_ranks.ranks = ranks;
    small_step_open(&alone, settings, open_reference);
    small_step_open(&shared, &with_ranks, open_reference);
    for (int step = 0; step < 2; step++) {
        small_step_run(&alone, alone.step, 0.05);
        small_step_run(&shared, shared.step, 0.05);
        check_losses(ranks, &alone, &shared);
        check_gradients(&alone, &shared);
        check_store(&alone, &shared);
    }
    small_step_close(&alone);
    small_step_close(&shared);
}

static void many_buckets(void **state)
{
    check_ranks(
        *state,
        &(small_settings){.teskd = true, .feature_weight = 0.02, .sgd = {.momentum = 0.9}, .buckets = {.most = 4096}});
}

static void one_bucket_with_rewrites(void **state)
{
    check_ranks(*state, &(small_settings){.teskd = true,
                                          .feature_weight = 0.02,
                                          .rewrites = REWRITE_ALL,
                                          .sgd = {.momentum = 0.9},
                                          .buckets = {.first = SIZE_MAX, .most = SIZE_MAX}});
}

/* The norms are of reduced gradients, so all ranks have the same rates. */
static void rates_of_lars(void **state)
{
    check_ranks(*state, &(small_settings){.teskd = true,
                                          .feature_weight = 0.02,
                                          .sgd = {.momentum = 0.9, .weight_decay = 5e-4, .lars_eta = 0.02},
                                          .buckets = {.first = 1, .most = 4096}});
}

/* It is one rank's, who has it before the others: they get it by the sums of the first normalisation. */
static void a_bad_image_is_its_ranks(void **state)
{
    comm *ranks = *state;
    const bool last = comm_describe(ranks)->rank + 1 == comm_describe(ranks)->size;
    small_step shared;
    not_finite found;
    const tensor_desc *desc;
    small_step_open(&shared, &(small_settings){.ranks = ranks, .sgd = {.momentum = 0.9}}, open_reference);
    small_step_run(&shared, shared.step, 0.05);
    double *image = program_value(shared.step, &shared.run, "input", &desc);
    if (last)
        image[0] = NAN;
    assert_int_equal(program_look(&shared.run, shared.step, &found), 0);
    assert_int_equal(found.node->op, last ? OP_CONV2D : OP_ALL_REDUCE);
    assert_string_equal(found.node->label, last ? "conv1" : "bn1");
    small_step_close(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_buckets),
        cmocka_unit_test(one_bucket_with_rewrites),
        cmocka_unit_test(rates_of_lars),
        cmocka_unit_test(a_bad_image_is_its_ranks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

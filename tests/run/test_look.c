/* The search for the node whose result is the first that is not finite, on the reference and on the CPU: with nothing
 * to find, with a bad image, weight, factor of a loss, sum of ranks or learning rate, and what a withheld step leaves
 * alone. */
#include "base/error.h"
#include "run/look.h"
#include "small_step.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static open_backend *const backends[] = {open_reference, open_cpu};
enum { BACKENDS = sizeof backends / sizeof *backends, BAD_IMAGE = 1 };

static const small_settings with_students = {
    .teskd = true, .feature_weight = 0.02, .sgd = {.momentum = 0.9, .withholds = true}, .rewrites = REWRITE_ALL};
static const small_settings plain = {.sgd = {.momentum = 0.9, .withholds = true}, .rewrites = REWRITE_ALL};

static void must(int status)
{
    if (status < 0)
        fail_msg("%s", error_message());
}

static not_finite look(small_step *s)
{
    not_finite found;
    must(program_look(&s->run, s->step, &found));
    return found;
}

static void set_element(const small_step *s, void *values, int64_t i, double value)
{
    if (s->device->ops->real == DTYPE_F64)
        ((double *)values)[i] = value;
    else
        ((float *)values)[i] = (float)value;
}

/* Its first element; returns what that was. */
static double set_tensor(const small_step *s, const char *name, double value)
{
    double *before = small_step_tensor(s, name), was = before[0];
    free(before);
    set_element(s, store_find(&s->tensors, name)->memory, 0, value);
    return was;
}

static void set_image(const small_step *s, int image, double value)
{
    const tensor_desc *desc;
    void *memory = program_value(s->step, &s->run, "input", &desc);
    set_element(s, memory, tensor_count(desc) / SMALL_BATCH * image, value);
}

static void assert_found(const not_finite *found, op_id op, const char *label)
{
    assert_non_null(found->node);
    assert_string_equal(op_name((op_id)found->node->op), op_name(op));
    assert_string_equal(found->node->label, label);
}

static void a_finite_step_has_none(void **state)
{
    (void)state;
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        small_step_open(&s, &with_students, backends[i]);
        small_step_run(&s, s.step, 0.05);
        const not_finite found = look(&s);
        assert_null(found.node);
        small_step_close(&s);
    }
}

static void the_image_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        small_step_open(&s, &plain, backends[i]);
        small_step_run(&s, s.step, 0.05);
        set_image(&s, BAD_IMAGE, NAN);
        const not_finite found = look(&s);
        assert_found(&found, OP_CONV2D, "conv1");
        assert_int_equal(found.images, SMALL_BATCH);
        assert_int_equal(found.bad_images, 1);
        assert_int_equal(found.worst_image, BAD_IMAGE);
        assert_int_equal(found.values, SMALL_BATCH * 4 * SMALL_SIDE * SMALL_SIDE);
        assert_int_equal(found.bad, 4 * 2 * 2); /* the corner of a 3x3 kernel, in all channels */
        small_step_close(&s);
    }
}

/* Whatever the layer, the first result with it is named. */
static void the_layer_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *tensor, *label;
        op_id op;
        int head;
    } cases[] = {{"layer1.0.conv1.weight", "layer1.0.conv1", OP_CONV2D, 0},
                 {"layer3.0.bn2.bias", "layer3.0.bn2", OP_BN_NORMALIZE, 0},
                 {"fc.weight", "fc", OP_LINEAR, 0},
                 {"laterals.3.0.weight", "laterals.3.0", OP_CONV2D, 1},
                 {"laterals.1.0.weight", "laterals.1.1", OP_LINEAR_BN_SUMS, 2},
                 {"downsample1.3.weight", "downsample1.3", OP_CONV2D, 3},
                 {"fc_b2.bias", "fc_b2", OP_LINEAR, 2}};
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        small_step_open(&s, &with_students, backends[i]);
        small_step_run(&s, s.step, 0);
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k += s.device->ops->real == DTYPE_F64 ? 3 : 1) {
            const double was = set_tensor(&s, cases[k].tensor, INFINITY);
            const not_finite found = look(&s);
            assert_found(&found, cases[k].op, cases[k].label);
            assert_int_equal(model_head_of(found.node->label), cases[k].head);
            set_tensor(&s, cases[k].tensor, was);
        }
        small_step_close(&s);
    }
}

/* The forward is finite. */
static void a_gradient_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        small_settings settings = with_students;
        settings.feature_weight = DBL_MAX;
        small_step_open(&s, &settings, backends[i]);
        small_step_run(&s, s.step, 0.05);
        const not_finite found = look(&s);
        assert_found(&found, OP_FEATURE_LOSS_GRAD, "loss.student1"); /* a backward begins at the end */
        assert_int_equal(model_head_of(found.node->label), 3);
        small_step_close(&s);
    }
}

/* Two ranks' sums, played by one: a number that every rank had finite is not when they are added. */
typedef struct {
    reduction base;
    double *sum; /* the first that was started */
} spoiling_sums;

static int start_sum(reduction *self, void *data, size_t count, comm_dtype type)
{
    (void)count;
    (void)type;
    spoiling_sums *s = (spoiling_sums *)self;
    s->sum = s->sum ? s->sum : data;
    return 0;
}

static int finish_sum(reduction *self)
{
    ((spoiling_sums *)self)->sum[0] = INFINITY;
    return 0;
}

static int do_nothing(reduction *self)
{
    (void)self;
    return 0;
}

static void a_sum_of_the_ranks_is_told(void **state)
{
    (void)state;
    static const reduction_ops ops = {
        .start = start_sum, .finish = finish_sum, .progress = do_nothing, .synchronize = do_nothing};
    spoiling_sums sums = {.base = {.ops = &ops}};
    small_step s;
    small_step_open(&s, &plain, open_reference);
    small_step_run(&s, s.step, 0.05);
    s.run.options.reducer = &sums.base;
    s.run.options.ranks = 2;
    const not_finite found = look(&s);
    assert_non_null(found.node);
    assert_true(found.summed && found.bad == 1);
    assert_ptr_equal(program_value(s.step, &s.run, "gradient/fc.weight", NULL), sums.sum);
    assert_found(&found, OP_LINEAR_WGRAD, "fc");
    small_step_close(&s);
}

/* By a learning rate that makes weights of finite gradients infinite. */
static void an_update_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        not_finite found;
        small_step_open(&s, &plain, backends[i]);
        small_step_run(&s, s.step, 0.05);
        must(program_look_at_updates(&s.run, s.step, &found));
        assert_null(found.node);
        small_step_run(&s, s.step, DBL_MAX);
        must(program_look_at_updates(&s.run, s.step, &found));
        assert_int_equal(found.node->op, OP_SGD_UPDATE);
        for (uint32_t before = 0; before < found.index; before++) /* the first of all, whose gradient is not 0 */
            assert_int_not_equal(s.step->step.nodes[before].op, OP_SGD_UPDATE);
        small_step_close(&s);
    }
}

static loss_sums sums_of(const small_step *s)
{
    loss_sums sums;
    memcpy(&sums, store_find(&s->tensors, LOSS_SUMS_STATE)->memory, sizeof sums);
    return sums;
}

/* With a bad image in the second of three runs: the weights stay, and the runs from there on are counted. */
static void a_withheld_step_changes_no_weight(void **state)
{
    (void)state;
    for (int i = 0; i < BACKENDS; i++) {
        small_step s;
        small_step_open(&s, &plain, backends[i]);
        small_step_run(&s, s.step, 0.05);
        double *before = small_step_tensor(&s, "conv1.weight"), *v = small_step_tensor(&s, "momentum/conv1.weight");
        const size_t bytes = (size_t)tensor_count(&store_find(&s.tensors, "conv1.weight")->desc) * sizeof *before;
        assert_true(sums_of(&s).bad_runs == 0 && sums_of(&s).bad_gradients == 0);
        set_image(&s, BAD_IMAGE, NAN);
        must(program_run(&s.run, s.step));
        assert_true(sums_of(&s).bad_runs == 1 && sums_of(&s).bad_gradients == 1);
        double *after = small_step_tensor(&s, "conv1.weight"), *w = small_step_tensor(&s, "momentum/conv1.weight");
        assert_memory_equal(before, after, bytes);
        assert_memory_equal(v, w, bytes);
        small_step_run(&s, s.step, 0.05);
        assert_true(sums_of(&s).bad_runs == 2 && sums_of(&s).bad_gradients == 1);
        free(before);
        free(after);
        free(v);
        free(w);
        small_step_close(&s);
    }
}

/* So that a step is the same bits whether it is looked at or not, clipped or not. */
static void withholding_changes_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * BACKENDS; i++) {
        small_step with, without;
        small_settings settings = plain;
        settings.sgd.clip_norm = i < BACKENDS ? 0 : 0.5;
        small_step_open(&with, &settings, backends[i % BACKENDS]);
        settings.sgd.withholds = false;
        small_step_open(&without, &settings, backends[i % BACKENDS]);
        for (int step = 0; step < 2; step++) {
            small_step_run(&with, with.step, 0.05);
            small_step_run(&without, without.step, 0.05);
        }
        for (uint32_t k = 0; k < with.tensors.n_entries; k++) {
            const store_entry *entry = &with.tensors.entries[k];
            assert_memory_equal(entry->memory, store_find(&without.tensors, entry->name)->memory,
                                tensor_bytes(&entry->desc));
        }
        small_step_close(&with);
        small_step_close(&without);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finite_step_has_none),     cmocka_unit_test(the_image_is_told),
        cmocka_unit_test(the_layer_is_told),          cmocka_unit_test(a_gradient_is_told),
        cmocka_unit_test(an_update_is_told),          cmocka_unit_test(a_withheld_step_changes_no_weight),
        cmocka_unit_test(withholding_changes_no_bit), cmocka_unit_test(a_sum_of_the_ranks_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

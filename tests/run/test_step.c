/* One training step as a whole: rewrites on against off, the padded images, the update against its formula, buckets,
 * shared arenas. */
#include "small_step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void run_once(small_step *s, const small_settings *settings, open_backend *open)
{
    small_step_open(s, settings, open);
    small_step_run(s, s->step, 0.05);
}

static void check_rewrites(unsigned rewrites, open_backend *open, double outputs, double gradients)
{
    small_step off, on;
    small_settings settings = {.teskd = true, .feature_weight = 0.02};
    run_once(&off, &settings, open);
    settings.rewrites = rewrites;
    run_once(&on, &settings, open);
    assert_same_step(&off, &on, outputs, gradients);
    small_step_close(&off);
    small_step_close(&on);
}

static void rewrites_change_nothing(void **state)
{
    (void)state;
    check_rewrites(REWRITE_UPSAMPLE, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_FUSE, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_PATCH, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_UPSAMPLE | REWRITE_UPSAMPLE_BN, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_LINEAR_BN, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_BIAS, open_reference, 1e-12, 1e-12);
    check_rewrites(REWRITE_ALL, open_reference, 1e-12, 1e-12);
}

/* In float32 a ReLU near zero may fall on the other side: one of n moves the gradient by about 1/sqrt(n). */
static const double float32_outputs = 1e-4, float32_gradients = 1e-2;

static void rewrites_change_nothing_on_the_cpu(void **state)
{
    (void)state;
    check_rewrites(REWRITE_ALL, open_cpu, float32_outputs, float32_gradients);
}

static void cpu_agrees_with_the_reference(void **state)
{
    (void)state;
    for (int on = 0; on < 2; on++) {
        small_step reference, cpu;
        small_settings settings = {.teskd = true, .feature_weight = 0.02};
        if (on)
            settings.rewrites = REWRITE_ALL;
        run_once(&reference, &settings, open_reference);
        run_once(&cpu, &settings, open_cpu);
        assert_same_step(&reference, &cpu, float32_outputs, float32_gradients);
        small_step_close(&reference);
        small_step_close(&cpu);
    }
}

static void padded_images_change_nothing(void **state)
{
    (void)state;
    const struct {
        open_backend *open;
        double outputs, gradients;
    } cases[] = {{open_reference, 1e-12, 1e-12}, {open_cpu, float32_outputs, float32_gradients}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        small_step own, padded;
        small_settings settings = {.teskd = true, .feature_weight = 0.02};
        run_once(&own, &settings, cases[i].open);
        settings.padded_channels = 8;
        run_once(&padded, &settings, cases[i].open);
        assert_same_step(&own, &padded, cases[i].outputs, cases[i].gradients);
        small_step_close(&own);
        small_step_close(&padded);
    }
}

/* What the update must make of one weight, as the formula reads. */
static void update_sgd(double *w, double *v, double gradient, double lr, const sgd_options *o, bool is_vector)
{
    double g = gradient;
    if (!is_vector || o->decay_vectors)
        g += o->weight_decay * *w;
    *v = o->momentum * *v + g;
    *w -= lr * (o->nesterov ? g + o->momentum * *v : *v);
}

/* Algorithm 1 of arXiv 1708.03888 with the rate of one layer; a vector has the global one and no decay. */
static void update_lars(double *w, double *v, double gradient, double rate, const sgd_options *o, bool is_vector)
{
    double u = rate * (gradient + (is_vector ? 0 : o->weight_decay * *w));
    *v = o->momentum * *v + u;
    *w -= o->nesterov ? u + o->momentum * *v : *v;
}

static double length(const double *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

static double local_rate(const double *w, const double *gradient, int64_t count, double lr, const sgd_options *o)
{
    double size = length(w, count);
    return lr * o->lars_eta * size / (length(gradient, count) + o->weight_decay * size);
}

static double *tensor_beside(const small_step *s, const char *prefix, const char *name)
{
    char full[GRAPH_NAME_BYTES + 16];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return small_step_tensor(s, full);
}

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-14 * (1 + fabs(expected))))
        fail_msg("%.17g is not %.17g", value, expected);
}

/* What clipping multiplies the gradients with. */
static double clip_factor(const small_step *s)
{
    double sum = 0;
    for (uint32_t k = 0; k < s->tensors.n_entries; k++) {
        const store_entry *entry = &s->tensors.entries[k];
        char name[GRAPH_NAME_BYTES + 16];
        if (entry->desc.kind != KIND_PARAMETER)
            continue;
        snprintf(name, sizeof name, "gradient/%s", entry->name);
        double *gradient = small_step_value(s, s->step, name, NULL);
        sum += pow(length(gradient, tensor_count(&entry->desc)), 2);
        free(gradient);
    }
    double most = s->options.sgd.clip_norm;
    return most > 0 ? fmin(1, most / sqrt(sum)) : 1;
}

static void check_parameter(const small_step *before, const small_step *after, const store_entry *entry, double lr,
                            double factor)
{
    const sgd_options *o = &before->options.sgd;
    bool is_vector = entry->desc.layout == LAYOUT_C;
    int64_t count = tensor_count(&entry->desc);
    char name[GRAPH_NAME_BYTES + 16];
    snprintf(name, sizeof name, "gradient/%s", entry->name);
    double *gradient = small_step_value(after, after->step, name, NULL);
    double *w = small_step_tensor(before, entry->name), *w_after = small_step_tensor(after, entry->name);
    double *v = tensor_beside(before, "momentum/", entry->name),
           *v_after = tensor_beside(after, "momentum/", entry->name);
    for (int64_t i = 0; i < count; i++)
        gradient[i] *= factor;
    double rate = o->lars_eta > 0 && !is_vector ? local_rate(w, gradient, count, lr, o) : lr;
    for (int64_t i = 0; i < count; i++) {
        (o->lars_eta > 0 ? update_lars : update_sgd)(&w[i], &v[i], gradient[i], rate, o, is_vector);
        assert_near(w_after[i], w[i]);
        assert_near(v_after[i], v[i]);
    }
    free(gradient);
    free(w);
    free(w_after);
    free(v);
    free(v_after);
}

static void update_follows_the_formula(void **state)
{
    (void)state;
    const sgd_options cases[] = {{.momentum = 0.9, .weight_decay = 5e-4, .nesterov = true, .decay_vectors = true},
                                 {.momentum = 0.9, .weight_decay = 5e-4, .decay_vectors = true},
                                 {.momentum = 0.5, .weight_decay = 0.1, .nesterov = true},
                                 {.momentum = 0},
                                 {.momentum = 0.9, .weight_decay = 5e-4, .clip_norm = 0.1, .decay_vectors = true},
                                 {.momentum = 0.9, .weight_decay = 5e-4, .lars_eta = 0.001},
                                 {.momentum = 0.9, .weight_decay = 0.1, .lars_eta = 0.02, .nesterov = true},
                                 {.momentum = 0.9, .lars_eta = 0.02, .clip_norm = 0.1},
                                 {.lars_eta = 0.001, .weight_decay = 5e-4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        small_step before, after;
        const small_settings settings = {.teskd = true, .sgd = cases[i]};
        small_step_open(&before, &settings, open_reference);
        run_once(&after, &settings, open_reference);
        double factor = clip_factor(&after);
        for (uint32_t k = 0; k < before.tensors.n_entries; k++)
            if (before.tensors.entries[k].desc.kind == KIND_PARAMETER)
                check_parameter(&before, &after, &before.tensors.entries[k], 0.05, factor);
        small_step_close(&before);
        small_step_close(&after);
    }
}

/* Which bucket the gradient is in. */
static const gradient_bucket *bucket_with(const program *p, value_id gradient)
{
    uint32_t b = 0;
    while (p->plan.offset[gradient] >= p->buckets[b].offset + p->buckets[b].bytes)
        b++;
    return &p->buckets[b];
}

/* Buckets lie end to end over the gradients, and each closes after the last node that writes into it. */
static void check_buckets(const program *p)
{
    size_t end = 0;
    assert_true(p->n_buckets >= 1);
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const gradient_bucket *bucket = &p->buckets[b];
        assert_int_equal(bucket->offset, end);
        assert_true(bucket->bytes > 0);
        assert_true(b == 0 || bucket->last_node > p->buckets[b - 1].last_node);
        end += bucket->bytes;
    }
    assert_int_equal(end, p->plan.arena_bytes[KIND_GRADIENT]);
    for (uint32_t i = 0; i < p->step.n_nodes; i++)
        for (int k = 0; k < p->step.nodes[i].n_out; k++) {
            value_id id = p->step.nodes[i].out[k];
            if (graph_desc(&p->step, id)->kind != KIND_GRADIENT)
                continue;
            const gradient_bucket *bucket = bucket_with(p, id);
            assert_true(i <= bucket->last_node);
            assert_true(p->plan.offset[id] + tensor_bytes(graph_desc(&p->step, id)) <= bucket->offset + bucket->bytes);
        }
}

/* What the node that closes this bucket writes: without it the bucket was not full. */
static size_t written_last(const program *p, const gradient_bucket *bucket)
{
    const graph_node *node = &p->step.nodes[bucket->last_node];
    size_t first = bucket->offset + bucket->bytes;
    for (int k = 0; k < node->n_out; k++)
        if (graph_desc(&p->step, node->out[k])->kind == KIND_GRADIENT && p->plan.offset[node->out[k]] < first)
            first = p->plan.offset[node->out[k]];
    return bucket->offset + bucket->bytes - first;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* No bucket closes early, and none goes on once it is full; only the last one may be smaller. */
static void check_sizes(const program *p, const bucket_sizes *sizes)
{
    const size_t all = p->plan.arena_bytes[KIND_GRADIENT];
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const gradient_bucket *bucket = &p->buckets[b];
        const size_t end = bucket->offset + bucket->bytes, written = written_last(p, bucket);
        const size_t head = at_least(sizes->first, bucket->offset), tail = at_least(sizes->last, all - end);
        const size_t full = at_most(sizes->most, at_most(head, tail));
        assert_true(bucket->bytes >= full || b + 1 == p->n_buckets);
        const size_t before_tail = at_least(sizes->last, all - end + written);
        if (bucket->bytes > written)
            assert_true(bucket->bytes - written < at_most(sizes->most, at_most(head, before_tail)));
    }
}

static void buckets_cover_the_gradients(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 5000, 100000, (size_t)1 << 30};
    uint32_t fewer = UINT32_MAX;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        small_step s;
        const bucket_sizes even = {.first = sizes[i], .most = sizes[i], .last = sizes[i]};
        run_once(&s, &(small_settings){.teskd = true, .buckets = even}, open_reference);
        check_buckets(s.step);
        check_sizes(s.step, &even);
        for (uint32_t b = 0; b + 1 < s.step->n_buckets; b++)
            assert_true(s.step->buckets[b].bytes >= sizes[i]);
        assert_true(s.step->n_buckets <= fewer);
        fewer = s.step->n_buckets;
        assert_int_equal(s.forward->n_buckets, 0);
        small_step_close(&s);
    }
    assert_int_equal(fewer, 1);
}

/* With a first and a last bucket of their own sizes. */
static void buckets_grow_from_both_ends(void **state)
{
    (void)state;
    enum { MOST = 100000 };
    const bucket_sizes cases[] = {{2000, MOST, MOST}, {MOST, MOST, 2000}, {2000, MOST, 2000}, {0, MOST, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        small_step s;
        small_step_open(&s, &(small_settings){.teskd = true, .buckets = cases[i]}, open_reference);
        const program *p = s.step;
        const gradient_bucket *first = &p->buckets[0], *last = &p->buckets[p->n_buckets - 1];
        check_buckets(p);
        check_sizes(p, &cases[i]);
        assert_true(p->n_buckets > 4);
        assert_true(first->bytes >= cases[i].first);
        if (cases[i].last < MOST)
            assert_true(last->bytes <= at_least(cases[i].last, p->buckets[p->n_buckets - 2].bytes));
        small_step_close(&s);
    }
}

/* All bits set is not a number: whoever reads memory that no node has written shows it. */
static void poison(small_step *s)
{
    memset(s->run.arena[KIND_ACTIVATION], 0xff, s->run.arena_bytes[KIND_ACTIVATION]);
    memset(s->run.arena[KIND_GRADIENT], 0xff, s->run.arena_bytes[KIND_GRADIENT]);
    if (s->run.workspace)
        memset(s->run.workspace, 0xff, s->run.workspace_bytes);
}

static void nothing_is_read_before_it_is_written(void **state)
{
    (void)state;
    open_backend *const backends[] = {open_reference, open_cpu};
    for (size_t i = 0; i < 2; i++)
        for (int on = 0; on < 2; on++) {
            small_step clean, poisoned;
            small_settings settings = {.teskd = true, .feature_weight = 0.02};
            if (on)
                settings.rewrites = REWRITE_ALL;
            run_once(&clean, &settings, backends[i]);
            small_step_open(&poisoned, &settings, backends[i]);
            poison(&poisoned);
            small_step_run(&poisoned, poisoned.step, 0.05);
            bool exact = backends[i] == open_reference;
            assert_same_step(&clean, &poisoned, exact ? 0 : float32_outputs, exact ? 0 : float32_gradients);
            small_step_close(&clean);
            small_step_close(&poisoned);
        }
}

/* Both programs use the same memory; what one leaves there must not matter to the other. */
static void programs_take_turns(void **state)
{
    (void)state;
    const small_settings settings = {.teskd = true, .rewrites = REWRITE_ALL};
    small_step alone, turns;
    run_once(&alone, &settings, open_reference);
    small_step_open(&turns, &settings, open_reference);
    small_step_run(&turns, turns.step, 0);
    small_step_run(&turns, turns.forward, 0);
    small_step_run(&turns, turns.step, 0.05);
    assert_same_step(&alone, &turns, 0, 0);
    small_step_close(&alone);
    small_step_close(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewrites_change_nothing),       cmocka_unit_test(rewrites_change_nothing_on_the_cpu),
        cmocka_unit_test(cpu_agrees_with_the_reference), cmocka_unit_test(padded_images_change_nothing),
        cmocka_unit_test(update_follows_the_formula),    cmocka_unit_test(buckets_cover_the_gradients),
        cmocka_unit_test(buckets_grow_from_both_ends),   cmocka_unit_test(nothing_is_read_before_it_is_written),
        cmocka_unit_test(programs_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

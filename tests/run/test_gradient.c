/* The gradients that graph_backward derives against finite differences of the joint loss, in float64. The loss is
 * computed here from the logits and features, so that a detached teacher can be held still. */
#include "small_step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Logits and features of every head; NULL where the plain method has no head. */
typedef struct {
    double *logits[HEADS], *features[HEADS];
    size_t n_features;
} head_outputs;

static head_outputs outputs_of(const small_step *s, const program *p)
{
    head_outputs out = {0};
    for (int head = 0; head < (s->options.model.teskd ? HEADS : 1); head++) {
        char name[GRAPH_NAME_BYTES];
        snprintf(name, sizeof name, "logits/%s", head_names[head]);
        out.logits[head] = small_step_value(s, p, name, NULL);
        snprintf(name, sizeof name, "features/%s", head_names[head]);
        out.features[head] = small_step_value(s, p, name, &out.n_features);
    }
    return out;
}

static void outputs_free(head_outputs *out)
{
    for (int head = 0; head < HEADS; head++) {
        free(out->logits[head]);
        free(out->features[head]);
    }
}

static void softmax(const double *z, double temperature, double p[SMALL_CLASSES])
{
    double sum = 0;
    for (int k = 0; k < SMALL_CLASSES; k++)
        sum += p[k] = exp(z[k] / temperature);
    for (int k = 0; k < SMALL_CLASSES; k++)
        p[k] /= sum;
}

static double cross_entropy(const double *logits)
{
    double sum = 0, p[SMALL_CLASSES];
    for (int n = 0; n < SMALL_BATCH; n++) {
        softmax(logits + n * SMALL_CLASSES, 1, p);
        sum -= log(p[small_target(n)]);
    }
    return sum / SMALL_BATCH;
}

static double distillation(const double *student, const double *teacher, double temperature)
{
    double sum = 0, p[SMALL_CLASSES], q[SMALL_CLASSES];
    for (int n = 0; n < SMALL_BATCH; n++) {
        softmax(student + n * SMALL_CLASSES, temperature, p);
        softmax(teacher + n * SMALL_CLASSES, temperature, q);
        for (int k = 0; k < SMALL_CLASSES; k++)
            sum += (q[k] + 1e-7) * (log(q[k] + 1e-7) - log(p[k]));
    }
    return temperature * temperature / SMALL_BATCH * sum;
}

static double squared_distance(const double *a, const double *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

static void check_loss(const small_step *s, const char *what, int head, double expected)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s/%s", what, head_names[head]);
    double *value = small_step_value(s, s->step, name, NULL);
    if (!(fabs(*value - expected) <= 1e-12 * fabs(expected)))
        fail_msg("%s is %.17g, not %.17g", name, *value, expected);
    free(value);
}

/* The losses that the step reports are the ones defined here. */
static void check_losses(const small_step *s, const head_outputs *out)
{
    for (int head = 0; head < HEADS && out->logits[head]; head++)
        check_loss(s, "cross_entropy", head, cross_entropy(out->logits[head]));
    for (int head = 1; head < HEADS && out->logits[head]; head++) {
        double temperature = s->options.model.temperature;
        check_loss(s, "kd", head, distillation(out->logits[head], out->logits[0], temperature));
        check_loss(s, "feature", head, squared_distance(out->features[head], out->features[0], out->n_features));
    }
}

/* `still`: the outputs that the detached teacher had before the weights were moved. */
static double joint_loss(const small_step *s, const head_outputs *now, const head_outputs *still)
{
    const model_options *o = &s->options.model;
    if (!o->teskd)
        return cross_entropy(now->logits[0]);
    double loss = o->ce_weight * o->teacher_weight * cross_entropy(now->logits[0]);
    for (int i = 0; i < STUDENTS; i++) {
        const double *target = o->kd_detach_teacher ? still->logits[0] : now->logits[0];
        loss += o->ce_weight * o->student_weights[i] * cross_entropy(now->logits[1 + i]);
        loss += o->kd_weight * distillation(now->logits[1 + i], target, o->temperature);
        loss += o->feature_weight * squared_distance(now->features[1 + i], still->features[0], now->n_features);
    }
    return loss;
}

/* A direction in the space of all parameters, entry by entry of the store, and the gradient beside it. */
typedef struct {
    uint32_t n_entries;
    double **gradient, **direction;
} field;

static double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

/* Along the gradient's signs with random lengths: every wrong element moves the derivative. */
static field field_of(const small_step *s)
{
    const store *t = &s->tensors;
    uint64_t state = 7;
    field f = {t->n_entries, calloc(t->n_entries, sizeof *f.gradient), calloc(t->n_entries, sizeof *f.direction)};
    for (uint32_t i = 0; i < t->n_entries; i++) {
        if (t->entries[i].desc.kind != KIND_PARAMETER)
            continue;
        char name[GRAPH_NAME_BYTES + 16];
        size_t count;
        snprintf(name, sizeof name, "gradient/%s", t->entries[i].name);
        f.gradient[i] = small_step_value(s, s->step, name, &count);
        assert_int_equal(count, tensor_count(&t->entries[i].desc));
        f.direction[i] = malloc(count * sizeof(double));
        for (size_t k = 0; k < count; k++)
            f.direction[i][k] = copysign(uniform(&state), f.gradient[i][k]);
    }
    return f;
}

static void field_free(field *f)
{
    for (uint32_t i = 0; i < f->n_entries; i++) {
        free(f->gradient[i]);
        free(f->direction[i]);
    }
    free(f->gradient);
    free(f->direction);
}

enum { ALL_ENTRIES = -1 };

/* Entry i of the store takes part, if it is a parameter. */
static bool takes_part(const field *f, uint32_t i, int only)
{
    return f->gradient[i] && (only == ALL_ENTRIES || (uint32_t)only == i);
}

static double dot(const small_step *s, const field *f, int only, double *const *a, double *const *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < f->n_entries; i++)
        for (int64_t k = 0; takes_part(f, i, only) && k < tensor_count(&s->tensors.entries[i].desc); k++)
            sum += a[i][k] * b[i][k];
    return sum;
}

static double loss_at(small_step *s, const field *f, int only, double distance, const head_outputs *still)
{
    double **before = calloc(f->n_entries, sizeof *before);
    for (uint32_t i = 0; i < f->n_entries; i++) {
        if (!takes_part(f, i, only))
            continue;
        store_entry *entry = &s->tensors.entries[i];
        before[i] = small_step_tensor(s, entry->name);
        for (int64_t k = 0; k < tensor_count(&entry->desc); k++)
            ((double *)entry->memory)[k] += distance * f->direction[i][k];
    }
    small_step_run(s, s->forward, 0);
    head_outputs now = outputs_of(s, s->forward);
    double loss = joint_loss(s, &now, still);
    outputs_free(&now);
    for (uint32_t i = 0; i < f->n_entries; i++)
        if (before[i])
            memcpy(s->tensors.entries[i].memory, before[i], tensor_bytes(&s->tensors.entries[i].desc));
    for (uint32_t i = 0; i < f->n_entries; i++)
        free(before[i]);
    free(before);
    return loss;
}

static const double tolerance = 1e-6;

/* Error of the derivative along the field, relative to `scale`. A ReLU that changes sides between the two points
 * spoils a difference, so the best of a few distances counts. */
static double derivative_error(small_step *s, const field *f, int only, double scale, const head_outputs *still)
{
    double length = sqrt(dot(s, f, only, f->direction, f->direction));
    double expected = dot(s, f, only, f->gradient, f->direction) / length;
    double best = INFINITY;
    for (double distance = 1e-5; distance > 5e-8 && best > tolerance / 10; distance /= 4) {
        double ahead = loss_at(s, f, only, distance / length, still);
        double behind = loss_at(s, f, only, -distance / length, still);
        best = fmin(best, fabs((ahead - behind) / (2 * distance) - expected) / fmax(fabs(expected), scale));
    }
    return best;
}

static void check_gradient(const small_settings *settings, bool each_tensor)
{
    small_step s;
    small_step_open(&s, settings, open_reference);
    small_step_run(&s, s.step, 0);
    head_outputs still = outputs_of(&s, s.step);
    check_losses(&s, &still);
    field f = field_of(&s);
    double norm = sqrt(dot(&s, &f, ALL_ENTRIES, f.gradient, f.gradient));
    assert_true(norm > 1e-3);
    double error = derivative_error(&s, &f, ALL_ENTRIES, 0, &still);
    if (!(error < tolerance))
        fail_msg("the derivative along all parameters is wrong by %g", error);
    for (uint32_t i = 0; each_tensor && i < f.n_entries; i++) {
        if (!f.gradient[i])
            continue;
        /* A bias before batch normalisation has gradient zero: compare with a share of the whole. */
        error = derivative_error(&s, &f, (int)i, 0.01 * norm, &still);
        if (!(error < tolerance))
            fail_msg("the gradient of %s is wrong by %g", s.tensors.entries[i].name, error);
    }
    field_free(&f);
    outputs_free(&still);
    small_step_close(&s);
}

static void plain(void **state)
{
    (void)state;
    check_gradient(&(small_settings){0}, true);
}

static void teskd_without_rewrites(void **state)
{
    (void)state;
    check_gradient(&(small_settings){.teskd = true}, true);
}

static void teskd_with_rewrites(void **state)
{
    (void)state;
    check_gradient(&(small_settings){.teskd = true, .feature_weight = 0.02, .rewrites = REWRITE_ALL}, true);
}

static void each_rewrite_alone(void **state)
{
    (void)state;
    check_gradient(&(small_settings){.teskd = true, .rewrites = REWRITE_UPSAMPLE}, false);
    check_gradient(&(small_settings){.teskd = true, .rewrites = REWRITE_FUSE}, false);
    check_gradient(&(small_settings){.teskd = true, .rewrites = REWRITE_PATCH}, false);
    check_gradient(&(small_settings){.teskd = true, .rewrites = REWRITE_LINEAR_BN}, true);
    check_gradient(&(small_settings){.teskd = true, .rewrites = REWRITE_BIAS}, false);
}

static void padded_images(void **state)
{
    (void)state;
    check_gradient(&(small_settings){.padded_channels = 8}, true);
}

static void detached_teacher(void **state)
{
    (void)state;
    small_settings settings = {.teskd = true, .kd_detach_teacher = true, .feature_weight = 0.02};
    check_gradient(&settings, false);
    settings.rewrites = REWRITE_ALL;
    check_gradient(&settings, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(teskd_without_rewrites),
        cmocka_unit_test(teskd_with_rewrites),
        cmocka_unit_test(each_rewrite_alone),
        cmocka_unit_test(padded_images),
        cmocka_unit_test(detached_teacher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Owns the small training step of the tests. Generated values are pure functions of a name and an index. */
#include "small_step.h"
#include "base/error.h"
#include "run/host_reduction.h"

#include <math.h>
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

int open_reference(backend **out)
{
    return backend_reference_open(out, 1);
}

int open_cpu(backend **out)
{
    return backend_cpu_open(out, 2, CPU_ISA_AUTO);
}

/* In [-1, 1). */
static double generated(const char *name, uint64_t index)
{
    uint64_t z = 14695981039346656037u;
    for (; *name; name++)
        z = (z ^ (uint8_t)*name) * 1099511628211u;
    z += (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1;
}

int32_t small_target(int n)
{
    return (int32_t)(SMALL_CLASSES * 0.5 * (generated("target", (uint64_t)n) + 1));
}

bool is_student(const char *name)
{
    static const char *const prefixes[] = {"laterals.", "upsample.", "fuse_", "downsample", "fc_b"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static double initial(const store_entry *entry, uint64_t index)
{
    double u = generated(entry->name, index);
    const int32_t *d = entry->desc.dim;
    if (strncmp(entry->name, "momentum/", 9) == 0)
        return 0.1 * u;
    if (strstr(entry->name, "running_var"))
        return 1 + 0.5 * u;
    if (entry->desc.layout != LAYOUT_C)
        return u * sqrt(6.0 / (d[1] * d[2] * d[3]));
    return strstr(entry->name, "weight") ? 1 + 0.5 * u : 0.2 * u;
}

static void generate_tensors(small_step *s)
{
    for (uint32_t i = 0; i < s->tensors.n_entries; i++) {
        store_entry *entry = &s->tensors.entries[i];
        size_t count = (size_t)tensor_count(&entry->desc);
        double *values = malloc(count * sizeof *values);
        for (size_t k = 0; k < count; k++)
            values[k] = initial(entry, k);
        if (store_is_saved(entry))
            MUST(store_import_f64(s->device, entry, values));
        free(values);
    }
}

static step_options options_of(const small_settings *settings)
{
    return (step_options){.model = {.network = network_find("cifarresnet8"),
                                    .teskd = settings->teskd,
                                    .students_on = {true, true, true},
                                    .classes = SMALL_CLASSES,
                                    .width = 4,
                                    .student_width = 32,
                                    .image_height = SMALL_SIDE,
                                    .image_width = SMALL_SIDE,
                                    .padded_channels = settings->padded_channels,
                                    .temperature = 4,
                                    .ce_weight = 0.2,
                                    .kd_weight = 0.8,
                                    .feature_weight = settings->feature_weight,
                                    .teacher_weight = 1,
                                    .student_weights = {0.9, 1.1, 0.7},
                                    .kd_detach_teacher = settings->kd_detach_teacher},
                          .rewrites = settings->rewrites,
                          .sgd = settings->sgd};
}

void small_step_open(small_step *s, const small_settings *settings, open_backend *open)
{
    *s = (small_step){.options = options_of(settings)};
    MUST(open(&s->device));
    comm *ranks = settings->ranks;
    if (!ranks) {
        MUST(comm_open_self(&s->own_ranks));
        ranks = s->own_ranks;
    }
    const comm_info *info = comm_describe(ranks);
    s->first = SMALL_BATCH * info->rank / info->size;
    s->batch = SMALL_BATCH * (info->rank + 1) / info->size - s->first;
    const step_shape shape = {.training = true,
                              .sync_bn = info->size > 1,
                              .batch = s->batch,
                              .global_batch = SMALL_BATCH,
                              .loss_batch = SMALL_BATCH};

    model m;
    graph step, forward;
    graph_init(&step, s->device->ops->real);
    MUST(step_build_training(&step, &m, &s->options, &shape));
    model_free(&m);
    graph_init(&forward, s->device->ops->real);
    model_build(&m, &forward, &s->options.model, &shape);
    graph_rewrite(&forward, s->options.rewrites);
    MUST(graph_status(&forward));
    model_free(&m);

    MUST(store_open(&s->tensors, s->device, &step));
    MUST(host_reduction_open(&s->sums, ranks, s->device));
    runtime_open(&s->run, &(runtime_options){.device = s->device,
                                             .tensors = &s->tensors,
                                             .reducer = s->sums,
                                             .ranks = info->size,
                                             .buckets = settings->buckets});
    MUST(runtime_add(&s->run, &step, &s->step));
    MUST(runtime_add(&s->run, &forward, &s->forward));
    MUST(runtime_bind(&s->run));
    generate_tensors(s);
}

void small_step_close(small_step *s)
{
    runtime_close(&s->run);
    s->sums->ops->close(s->sums);
    store_close(&s->tensors);
    if (s->own_ranks)
        comm_close(s->own_ranks);
    s->device->ops->close(s->device);
}

static void fill_inputs(small_step *s, program *p)
{
    const tensor_desc *desc;
    program_value(p, &s->run, "input", &desc);
    void *memory = malloc(tensor_bytes(desc));
    int64_t first = s->first * tensor_count(desc) / s->batch;
    for (int64_t i = 0; i < tensor_count(desc); i++) {
        double value = sqrt(3) * generated("input", (uint64_t)(first + i));
        if (desc->dtype == DTYPE_F64)
            ((double *)memory)[i] = value;
        else
            ((float *)memory)[i] = (float)value;
    }
    MUST(program_write(p, &s->run, "input", memory, tensor_bytes(desc)));
    free(memory);
    int32_t target[SMALL_BATCH];
    for (int n = 0; n < s->batch; n++)
        target[n] = small_target(s->first + n);
    MUST(program_write(p, &s->run, "target", target, (size_t)s->batch * sizeof *target));
}

void small_step_run(small_step *s, program *p, double lr)
{
    fill_inputs(s, p);
    MUST(program_write(p, &s->run, "lr", &lr, sizeof lr));
    MUST(program_run(&s->run, p));
}

static double *as_float64(const void *memory, const tensor_desc *desc)
{
    size_t count = (size_t)tensor_count(desc);
    double *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = desc->dtype == DTYPE_F64 ? ((const double *)memory)[i] : (double)((const float *)memory)[i];
    return values;
}

double *small_step_value(const small_step *s, const program *p, const char *name, size_t *count)
{
    const tensor_desc *desc = NULL;
    if (!program_value(p, &s->run, name, &desc))
        fail_msg("the program has no %s", name);
    if (count)
        *count = (size_t)tensor_count(desc);
    double *values = malloc((size_t)tensor_count(desc) * sizeof *values);
    MUST(program_read(p, &s->run, name, values));
    return values;
}

double *small_step_tensor(const small_step *s, const char *name)
{
    const store_entry *entry = store_find(&s->tensors, name);
    if (!entry)
        fail_msg("the store has no %s", name);
    return as_float64(entry->memory, &entry->desc);
}

static double norm(const double *a, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * a[i];
    return sqrt(sum);
}

static double distance(const double *a, const double *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

static double norm_of_gradients(const small_step *s)
{
    double sum = 0;
    for (value_id id = 1; id < s->step->step.n_values; id++) {
        const graph_value *value = &s->step->step.values[id];
        if (value->desc.kind != KIND_GRADIENT)
            continue;
        size_t count;
        double *gradient = small_step_value(s, s->step, value->name, &count);
        sum += pow(norm(gradient, count), 2);
        free(gradient);
    }
    return sqrt(sum);
}

void assert_same_step(const small_step *a, const small_step *b, double outputs, double gradients)
{
    double floor = 0.01 * norm_of_gradients(a);
    int compared = 0;
    for (value_id id = 1; id < a->step->step.n_values; id++) {
        const graph_value *value = &a->step->step.values[id];
        bool is_gradient = value->desc.kind == KIND_GRADIENT;
        if (!is_gradient && !value->keep)
            continue;
        size_t count_a, count_b;
        double *va = small_step_value(a, a->step, value->name, &count_a);
        double *vb = small_step_value(b, b->step, value->name, &count_b);
        assert_int_equal(count_a, count_b);
        double size = fmax(norm(va, count_a), is_gradient ? floor : 0);
        double difference = distance(va, vb, count_a);
        if (!(difference <= (is_gradient ? gradients : outputs) * size))
            fail_msg("%s differs by %g of %g", value->name, difference, size);
        compared++;
        free(va);
        free(vb);
    }
    assert_true(compared > 20);
}

/* Training steps on the emulated device with sums by NCCL. Gradients lie in NCCL's memory where it is given, else in
 * plain memory, as they are and narrowed to 16 bits; the weights come out the same. */
#include "../../graph/recipe.h"
#include "base/error.h"
#include "fixture.h"
#include "kernels/cuda/device/cuda_open.h"
#include "model/step.h"
#include "run/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 16, CLASSES = 5, BATCH = 2 /* a rank's */, STEPS = 3 /* the second is captured, the third replayed */ };

typedef struct {
    const char *behaviour; /* of NCCL */
    bool narrow;
} variant;

typedef struct {
    backend *device;
    reduction *sums;
    store tensors;
    runtime run;
    program *step;
} trainer;

static void open_device(trainer *t)
{
    ok(backend_cuda_open(&t->device, &(cuda_options){.precision = CUDA_FP16, .deterministic = true}));
}

static void build_step(const trainer *t, graph *g)
{
    step_options options = recipe_step(network_find("cifarresnet8"));
    options.model.classes = CLASSES;
    options.model.width = 8;
    options.model.student_width = 32;
    options.model.feature_weight = 1e-4;
    options.rewrites = REWRITE_NONE;
    options.model.image_height = options.model.image_width = SIDE;
    options.model.padded_channels = t->device->ops->pads_images ? PADDED_IMAGE_CHANNELS : 0;
    options.precision.activation = t->device->ops->activation;
    options.precision.loss_scaling = options.precision.activation == DTYPE_F16;
    options.fuses = t->device->ops->fuses;
    options.placed_rows = t->device->ops->placed_rows;
    options.sgd.weight_decay = 0;
    const step_shape shape = {.training = true,
                              .sync_bn = true,
                              .batch = BATCH,
                              .global_batch = BATCH * rank_count(),
                              .loss_batch = BATCH * rank_count()};
    model m;
    graph_init(g, t->device->ops->real);
    ok(step_build_training(g, &m, &options, &shape));
    model_free(&m);
}

/* In [-1, 1), by name and place. */
static double generated(const char *name, uint64_t index)
{
    uint64_t z = 1469598103934665603u + index * 0x9E3779B97F4A7C15u;
    for (; *name; name++)
        z = (z ^ (uint8_t)*name) * 1099511628211u;
    z = (z ^ (z >> 29)) * 0xBF58476D1CE4E5B9u;
    return (double)((z ^ (z >> 32)) >> 11) * 0x1p-52 - 1;
}

static void generate_tensors(trainer *t)
{
    for (uint32_t i = 0; i < t->tensors.n_entries; i++) {
        const store_entry *entry = &t->tensors.entries[i];
        size_t count = (size_t)tensor_count(&entry->desc);
        if (store_role(entry->name) != ENTRY_MODEL)
            continue;
        double *values = calloc(count, sizeof *values);
        bool positive = strstr(entry->name, "running_var") || entry->desc.layout == LAYOUT_C;
        for (size_t k = 0; k < count; k++)
            values[k] = 0.2 * generated(entry->name, k) + (positive ? 1 : 0);
        ok(store_import_f64(t->device, entry, values));
        free(values);
    }
    ok(store_refresh_copies(&t->tensors));
}

static void open_trainer(trainer *t, const variant *v)
{
    graph g;
    *t = (trainer){0};
    open_device(t);
    build_step(t, &g);
    ok(store_open(&t->tensors, t->device, &g));
    setenv("FAKE_NCCL", v->behaviour, 1);
    ok(nccl_reduction_open(&t->sums, libraries, ranks, cuda_backend_stream(t->device),
                           &(nccl_options){.deadline_seconds = 60}));
    runtime_open(&t->run, &(runtime_options){.device = t->device,
                                             .tensors = &t->tensors,
                                             .reducer = t->sums,
                                             .ranks = rank_count(),
                                             .buckets = {.most = 4096},
                                             .reduction_dtype = v->narrow ? DTYPE_F16 : t->device->ops->real,
                                             .capture = true});
    ok(runtime_add(&t->run, &g, &t->step));
    assert_true(t->step->n_buckets > 3);
    ok(runtime_bind(&t->run));
    generate_tensors(t);
}

static void close_trainer(trainer *t)
{
    runtime_close(&t->run);
    t->sums->ops->close(t->sums);
    store_close(&t->tensors);
    t->device->ops->close(t->device);
}

static void fill_inputs(const trainer *t)
{
    const tensor_desc *desc;
    int32_t target[BATCH];
    int first = BATCH * comm_describe(ranks)->rank;
    double lr = 0.01;
    assert_non_null(program_value(t->step, &t->run, "input", &desc));
    uint64_t count = (uint64_t)tensor_count(desc), start = count * (uint64_t)comm_describe(ranks)->rank;
    char *memory = calloc(1, tensor_bytes(desc));
    for (uint64_t i = 0; i < count; i++) /* the upper byte alone: 0 or about 1 in any dtype */
        memory[i * dtype_bytes(desc->dtype) + dtype_bytes(desc->dtype) - 1] =
            generated("input", start + i) < 0 ? 0 : 0x3C;
    ok(program_write(t->step, &t->run, "input", memory, tensor_bytes(desc)));
    free(memory);
    for (int i = 0; i < BATCH; i++)
        target[i] = (first + i) % CLASSES;
    ok(program_write(t->step, &t->run, "target", target, sizeof target));
    ok(program_write(t->step, &t->run, "lr", &lr, sizeof lr));
}

static void train(trainer *t)
{
    exposed_time exposed;
    for (int step = 0; step < STEPS; step++) {
        fill_inputs(t);
        ok(program_run(&t->run, t->step));
    }
    ok(runtime_synchronize(&t->run));
    assert_non_null(t->step->captured);
    ok(runtime_exposed(&t->run, &exposed)); /* which the replay has noted */
    assert_true(exposed.waiting > 0 && exposed.advancing == 0);
    ok(runtime_exposed(&t->run, &exposed));
    assert_true(exposed.waiting == 0);
}

static double *weights(const trainer *t, size_t *count)
{
    double *all = NULL;
    *count = 0;
    for (uint32_t i = 0; i < t->tensors.n_entries; i++) {
        const store_entry *entry = &t->tensors.entries[i];
        size_t n = (size_t)tensor_count(&entry->desc);
        if (store_role(entry->name) != ENTRY_MODEL)
            continue;
        all = realloc(all, (*count + n) * sizeof *all);
        assert_non_null(all);
        ok(store_export_f64(t->device, entry, all + *count));
        *count += n;
    }
    return all;
}

/* The gradients' memory that is summed, and whether it is NCCL's. */
static void check_memory(const trainer *t, const variant *v)
{
    const void *summed = v->narrow ? t->run.narrowed_gradients : t->run.arena[KIND_GRADIENT];
    bool given = v->behaviour[0] == '\0';
    assert_non_null(summed);
    assert_non_null(t->run.arena[KIND_GRADIENT]);
    assert_ptr_equal(t->run.reduction_memory, given ? summed : NULL);
    assert_history(given ? "AR" : "AF");
}

static double *train_so(const variant *v, size_t *count)
{
    trainer t;
    open_trainer(&t, v);
    check_memory(&t, v);
    double *initial = weights(&t, count);
    train(&t);
    double *result = weights(&t, count);
    assert_memory_not_equal(initial, result, *count * sizeof *result);
    free(initial);
    close_trainer(&t);
    assert_history(v->behaviour[0] ? "fd" : "DFfd");
    assert_int_equal(emulated_used(), 0);
    return result;
}

static void same_weights(bool narrow)
{
    size_t count, count_plain;
    double *given = train_so(&(variant){"", narrow}, &count);
    double *plain = train_so(&(variant){"no_windows", narrow}, &count_plain);
    assert_int_equal(count, count_plain);
    assert_memory_equal(given, plain, count * sizeof *given);
    for (size_t i = 0; i < count; i++)
        assert_true(given[i] - given[i] == 0); /* finite */
    free(given);
    free(plain);
}

static void sums_as_they_are(void **state)
{
    (void)state;
    same_weights(false);
}

static void sums_in_16_bits(void **state)
{
    (void)state;
    same_weights(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_as_they_are),
        cmocka_unit_test(sums_in_16_bits),
    };
    return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}

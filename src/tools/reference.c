/* Owns the comparison with reference results.
 * Invariant: every result in the file is either compared or a failure. One thread.
 *
 * In float64 each loss is compared with its own size, each tensor with its own norm or a thousandth of the whole
 * gradient's if that is larger. Otherwise groups are compared as a whole. The bounds: reference_bounds.c. */
#include "tools/reference.h"
#include "base/error.h"
#include "model/step.h"
#include "session/configure.h"
#include "tools/reference_bounds.h"
#include "tools/reference_problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOSSES = 11, INPUT_HEAD = 16 };

typedef struct {
    reference_file file;
    backend *device;
    store tensors;
    runtime run;
    program *training, *evaluation;
    const compare_options *options;
    FILE *out;
    int failures;
} comparison;

static bool is_wide(const comparison *c)
{
    return c->device->ops->real == DTYPE_F64;
}

static void print_line(comparison *c, const char *what, double error, double bound)
{
    bool ok = error <= bound; /* false for NaN */
    fprintf(c->out, "  %-44s %12.3e %12.3e  %s\n", what, error, bound, ok ? "ok" : "OUT OF BOUNDS");
    c->failures += !ok;
}

static int find_bound(const comparison *c, const char *dataset, int count, int index, double *bound)
{
    return compare_bound(&c->file, c->device, dataset, count, index, bound);
}

static double relative_l2(const double *a, const double *b, int64_t count)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference / norm);
}

/* [HEADS, N, F] datasets: one line per head. */
static int compare_heads(comparison *c, const program *p, const char *what, const char *dataset)
{
    char name[GRAPH_NAME_BYTES];
    const tensor_desc *desc = NULL;
    snprintf(name, sizeof name, "%s/%s", what, head_names[0]);
    program_value(p, &c->run, name, &desc);
    int64_t count = tensor_count(desc);
    double *expected = malloc((size_t)(HEADS + 1) * (size_t)count * sizeof *expected), bound;
    CHECK(expected, ERROR_MEMORY, "no memory for %s", dataset);
    double *found = expected + HEADS * count;
    int status = reference_read(&c->file, dataset, HEADS * count, expected);
    for (int head = 0; status == 0 && head < HEADS; head++) {
        snprintf(name, sizeof name, "%s/%s", what, head_names[head]);
        status = program_read(p, &c->run, name, found);
        if (status == 0)
            status = find_bound(c, dataset, HEADS, head, &bound);
        snprintf(name, sizeof name, "%s of %s", dataset, head_names[head]);
        if (status == 0)
            print_line(c, name, relative_l2(found, expected + head * count, count), bound);
    }
    free(expected);
    return status;
}

/* The file's order: total; cross entropy of the heads; kd of the students; feature loss of the students. */
static int read_losses(const comparison *c, double losses[LOSSES])
{
    const reference_file *f = &c->file;
    static const char *const groups[] = {"cross_entropy", "kd", "feature"};
    int next = 1;
    for (int group = 0; group < 3; group++)
        for (int head = group == 0 ? 0 : 1; head < HEADS; head++) {
            char name[GRAPH_NAME_BYTES];
            snprintf(name, sizeof name, "%s/%s", groups[group], head_names[head]);
            TRY(program_read(c->training, &c->run, name, &losses[next++]));
        }
    losses[0] = f->ce_weight * f->teacher_weight * losses[1];
    for (int i = 0; i < STUDENTS; i++)
        losses[0] += f->ce_weight * f->student_weights[i] * losses[2 + i] + f->kd_weight * losses[5 + i] +
                     f->feature_weight * losses[8 + i];
    return 0;
}

static int compare_losses(comparison *c, int step)
{
    static const char *const names[LOSSES] = {
        "total",       "ce teacher",  "ce student3",      "ce student2",      "ce student1",     "kd student3",
        "kd student2", "kd student1", "feature student3", "feature student2", "feature student1"};
    int64_t count = c->file.steps * LOSSES;
    double found[LOSSES], bound, *expected = malloc((size_t)count * sizeof *expected);
    CHECK(expected, ERROR_MEMORY, "no memory for the losses");
    int status = reference_read(&c->file, "losses", count, expected);
    if (status == 0)
        status = find_bound(c, "losses", (int)c->file.steps, step, &bound);
    if (status == 0)
        status = read_losses(c, found);
    if (status == 0) {
        const double *row = expected + step * LOSSES;
        double norm = 0;
        for (int i = 0; i < LOSSES; i++)
            norm += row[i] * row[i];
        for (int i = 0; i < LOSSES; i++) {
            char what[64];
            snprintf(what, sizeof what, "step %d loss %s", step, names[i]);
            print_line(c, what, fabs(found[i] - row[i]) / (is_wide(c) ? fabs(row[i]) : sqrt(norm)), bound);
        }
    }
    free(expected);
    return status;
}

/* Sums over the tensors of one group. */
typedef struct {
    double difference, norm; /* squared, each tensor's samples scaled to its whole norm */
    double worst_whole, worst_error;
    char worst_name[GRAPH_NAME_BYTES];
} pooled_error;

static void pool_tensor(pooled_error *pool, const char *name, const reference_tensor *expected, const double *found,
                        double whole_norm)
{
    double difference = 0, norm = 0, l2 = 0;
    for (int64_t i = 0; i < expected->samples; i++) {
        int64_t at = expected->index ? expected->index[i] : i;
        difference += (found[at] - expected->value[i]) * (found[at] - expected->value[i]);
        norm += expected->value[i] * expected->value[i];
        l2 += expected->index ? 0 : expected->value[i] * expected->value[i];
    }
    double whole = isnan(expected->l2) ? l2 : expected->l2 * expected->l2;
    double scale = norm > 0 ? whole / norm : 1;
    pool->difference += difference * scale;
    pool->norm += whole;
    double error = sqrt(difference * scale) / fmax(sqrt(whole), 1e-3 * whole_norm);
    if (!(error <= pool->worst_error)) {
        pool->worst_error = error;
        snprintf(pool->worst_name, sizeof pool->worst_name, "%s", name);
    }
}

/* Norm and sum of the whole tensor say that the elements which were not sampled are right too. */
static void pool_whole(pooled_error *pool, const reference_tensor *expected, const double *found, int64_t count,
                       double whole_norm)
{
    double squares = 0, sum = 0;
    if (isnan(expected->l2))
        return;
    for (int64_t i = 0; i < count; i++) {
        squares += found[i] * found[i];
        sum += found[i];
    }
    double scale = fmax(expected->l2, 1e-3 * whole_norm); /* a sum is at most sqrt(count) norms */
    pool->worst_whole = fmax(pool->worst_whole, fabs(sqrt(squares) - expected->l2) / scale);
    pool->worst_whole = fmax(pool->worst_whole, fabs(sum - expected->sum) / (scale * sqrt((double)count)));
}

/* The tensor at the entry's memory, divided by `scale`. */
static int compare_tensor(comparison *c, const char *group, const store_entry *entry, double scale, double whole_norm,
                          pooled_error *pool)
{
    reference_tensor expected;
    int64_t count = tensor_count(&entry->desc);
    TRY(reference_read_tensor(&c->file, group, entry->name, &expected));
    int status = 0;
    double *found = malloc((size_t)count * sizeof *found);
    if (!found) {
        status = error_set(ERROR_MEMORY, "no memory for %s", entry->name);
        goto out;
    }
    for (int64_t i = 0; i < expected.samples; i++) {
        int64_t at = expected.index ? expected.index[i] : i;
        if (at < 0 || at >= count) {
            status = error_set(ERROR_FILE, "%s: %s/%s samples element %lld of %lld", c->file.path, group, entry->name,
                               (long long)at, (long long)count);
            goto out;
        }
    }
    status = store_export_f64(c->device, entry, found);
    for (int64_t i = 0; i < count; i++)
        found[i] /= scale;
    pool_tensor(pool, entry->name, &expected, found, whole_norm);
    pool_whole(pool, &expected, found, count, whole_norm);
out:
    free(found);
    reference_tensor_free(&expected);
    return status;
}

static void print_pool(comparison *c, const char *what, const pooled_error *pool, double bound)
{
    char line[GRAPH_NAME_BYTES + 48];
    print_line(c, what, sqrt(pool->difference / pool->norm), bound);
    if (!is_wide(c))
        return;
    snprintf(line, sizeof line, "%s, worst norm or sum", what);
    print_line(c, line, pool->worst_whole, bound);
    snprintf(line, sizeof line, "  worst: %s", pool->worst_name);
    print_line(c, line, pool->worst_error, bound);
}

static int whole_gradient_norm(const comparison *c, double *norm)
{
    double sum = 0;
    for (uint32_t i = 0; i < c->tensors.n_entries; i++) {
        reference_tensor t;
        if (c->tensors.entries[i].desc.kind != KIND_PARAMETER)
            continue;
        TRY(reference_read_tensor(&c->file, "gradients", c->tensors.entries[i].name, &t));
        sum += t.l2 * t.l2;
        reference_tensor_free(&t);
    }
    *norm = sqrt(sum);
    return 0;
}

/* What the gradients of this device are multiplied by. */
static int loss_scale(const comparison *c, double *scale)
{
    float state[SCALING_NUMBERS] = {[SCALING_SCALE] = 1};
    const store_entry *entry = store_find(&c->tensors, LOSS_SCALE_STATE);
    if (entry)
        TRY(c->device->ops->read(c->device, state, entry->memory, sizeof state));
    *scale = (double)state[SCALING_SCALE];
    return 0;
}

static int compare_gradients(comparison *c)
{
    pooled_error pool = {0};
    double whole, bound, scale;
    int64_t compared = 0;
    TRY(loss_scale(c, &scale));
    TRY(whole_gradient_norm(c, &whole));
    TRY(find_bound(c, "gradients", 1, 0, &bound));
    for (uint32_t i = 0; i < c->tensors.n_entries; i++) {
        store_entry gradient = c->tensors.entries[i];
        char name[2 * GRAPH_NAME_BYTES];
        if (gradient.desc.kind != KIND_PARAMETER)
            continue;
        snprintf(name, sizeof name, "gradient/%s", gradient.name);
        gradient.memory = program_value(c->training, &c->run, name, NULL);
        TRY(compare_tensor(c, "gradients", &gradient, scale, whole, &pool));
        compared++;
    }
    int64_t listed = reference_count(&c->file, "gradients");
    CHECK(listed == compared, ERROR_FILE, "%s: %lld gradients, but the network has %lld parameters", c->file.path,
          (long long)listed, (long long)compared);
    print_pool(c, "gradients", &pool, bound);
    return 0;
}

static int compare_after(comparison *c)
{
    pooled_error weights = {0}, statistics = {0};
    double weights_bound, statistics_bound;
    int64_t compared = 0;
    TRY(find_bound(c, "after", 1, 0, &weights_bound));
    TRY(find_bound(c, "running", 1, 0, &statistics_bound));
    for (uint32_t i = 0; i < c->tensors.n_entries; i++) {
        const store_entry *entry = &c->tensors.entries[i];
        bool is_weight = entry->desc.kind == KIND_PARAMETER;
        if (!is_weight && store_role(entry->name) != ENTRY_MODEL)
            continue;
        TRY(compare_tensor(c, "after", entry, 1, 0, is_weight ? &weights : &statistics));
        compared++;
    }
    int64_t listed = reference_count(&c->file, "after");
    CHECK(listed == compared, ERROR_FILE, "%s: %lld tensors after the last step, but the network has %lld",
          c->file.path, (long long)listed, (long long)compared);
    print_pool(c, "updated weights", &weights, weights_bound);
    print_pool(c, "running statistics", &statistics, statistics_bound);
    return 0;
}

static int fill_options(const comparison *c, step_options *o)
{
    const reference_file *f = &c->file;
    *o = (step_options){.rewrites = c->options->rewrites,
                        .sgd = {.momentum = f->momentum,
                                .weight_decay = f->weight_decay,
                                .lars_eta = f->lars_eta,
                                .nesterov = f->nesterov != 0,
                                .decay_vectors = f->lars_eta == 0},
                        .model = {.network = network_find(f->network),
                                  .teskd = true,
                                  .students_on = {true, true, true},
                                  .classes = (int32_t)f->classes,
                                  .width = (int32_t)f->base_width,
                                  .student_width = (int32_t)f->student_width,
                                  .image_height = (int32_t)f->height,
                                  .image_width = (int32_t)f->width,
                                  .temperature = f->temperature,
                                  .ce_weight = f->ce_weight,
                                  .kd_weight = f->kd_weight,
                                  .feature_weight = f->feature_weight,
                                  .teacher_weight = f->teacher_weight}};
    CHECK(o->model.network, ERROR_FILE, "%s: there is no network \"%s\"", f->path, f->network);
    memcpy(o->model.student_weights, f->student_weights, sizeof f->student_weights);
    configure_for_device(o, c->device->ops);
    return 0;
}

static int build_training(comparison *c, const step_options *o)
{
    const int32_t batch = (int32_t)c->file.batch;
    graph g;
    model m;
    graph_init(&g, c->device->ops->real);
    int status = step_build_training(
        &g, &m, o, &(step_shape){.training = true, .batch = batch, .global_batch = batch, .loss_batch = batch});
    model_free(&m);
    if (status == 0)
        status = store_open(&c->tensors, c->device, &g);
    if (status < 0) {
        graph_free(&g);
        return status;
    }
    runtime_open(&c->run, &(runtime_options){
                              .device = c->device, .tensors = &c->tensors, .ranks = 1, .capture = c->options->capture});
    return runtime_add(&c->run, &g, &c->training);
}

static int build_evaluation(comparison *c, const step_options *o)
{
    graph g;
    model m;
    graph_init(&g, c->device->ops->real);
    step_build_evaluation(&g, &m, o, (int32_t)c->file.batch, &(step_input){.kind = INPUT_REAL});
    model_free(&m);
    int status = store_add(&c->tensors, &g);
    if (status < 0) {
        graph_free(&g);
        return status;
    }
    return runtime_add(&c->run, &g, &c->evaluation);
}

static int set_up(comparison *c)
{
    step_options o;
    TRY(fill_options(c, &o));
    TRY(build_training(c, &o));
    TRY(build_evaluation(c, &o));
    return runtime_bind(&c->run);
}

/* Classes are integers: they are all right, or the error is the share of wrong ones. */
static int compare_target(comparison *c)
{
    double *expected = malloc(2 * (size_t)c->file.batch * sizeof *expected), wrong = 0;
    CHECK(expected, ERROR_MEMORY, "no memory for the classes");
    double *found = expected + c->file.batch;
    int status = reference_read(&c->file, "target", c->file.batch, expected);
    if (status == 0)
        status = program_read(c->training, &c->run, "target", found);
    for (int64_t i = 0; status == 0 && i < c->file.batch; i++)
        wrong += expected[i] != found[i];
    free(expected);
    if (status == 0)
        print_line(c, "target generator", wrong / (double)c->file.batch, 0);
    return status;
}

static int fill_store(comparison *c, const store_entry *scaling, float scale)
{
    const float state[SCALING_NUMBERS] = {[SCALING_SCALE] = scale};
    TRY(problem_fill_store(&c->tensors, &c->file));
    return scaling ? c->device->ops->write(c->device, scaling->memory, state, sizeof state) : 0;
}

static int overflows(comparison *c, const store_entry *scaling, float scale, bool *answer)
{
    float state[SCALING_NUMBERS];
    TRY(fill_store(c, scaling, scale));
    TRY(problem_fill_inputs(c->training, &c->run, &c->file));
    TRY(program_run(&c->run, c->training));
    TRY(c->device->ops->read(c->device, state, scaling->memory, sizeof state));
    *answer = state[SCALING_SKIPPED] > 0;
    return 0;
}

/* The loss scale loses no small gradients, and is smaller only where the first step overflows with it. */
static int begin(comparison *c)
{
    const store_entry *scaling = store_find(&c->tensors, LOSS_SCALE_STATE);
    bool too_large = scaling != NULL;
    float scale = 4096;
    while (too_large && scale > 1) {
        TRY(overflows(c, scaling, scale, &too_large));
        scale = too_large ? scale / 16 : scale;
    }
    return fill_store(c, scaling, scale);
}

static int run_all(comparison *c)
{
    double head[INPUT_HEAD], expected_head[INPUT_HEAD];
    TRY(begin(c));
    TRY(reference_read(&c->file, "input_head", INPUT_HEAD, expected_head));
    problem_input_head(&c->file, INPUT_HEAD, head);
    fprintf(c->out, "  %-44s %12s %12s\n", "", "rel. L2", "bound");
    print_line(c, "input generator", relative_l2(head, expected_head, INPUT_HEAD), 1e-15);
    for (int step = 0; step < c->file.steps; step++) {
        TRY(problem_fill_inputs(c->training, &c->run, &c->file));
        if (step == 0)
            TRY(compare_target(c));
        TRY(program_run(&c->run, c->training));
        if (step == 0) {
            TRY(compare_heads(c, c->training, "logits", "logits"));
            TRY(compare_heads(c, c->training, "features", "features"));
            TRY(compare_gradients(c));
        }
        TRY(compare_losses(c, step));
    }
    TRY(compare_after(c));
    TRY(problem_fill_inputs(c->evaluation, &c->run, &c->file));
    TRY(program_run(&c->run, c->evaluation));
    return compare_heads(c, c->evaluation, "logits", "eval_logits");
}

int compare_with_reference(backend *device, const char *path, const compare_options *options, FILE *out)
{
    comparison c = {.device = device, .options = options, .out = out};
    TRY(reference_open(&c.file, path));
    int status = set_up(&c);
    if (status == 0) {
        fprintf(out, "%s: %s, %lld classes, batch %lld of %lldx%lld, %lld steps, on %s\n", path, c.file.network,
                (long long)c.file.classes, (long long)c.file.batch, (long long)c.file.height, (long long)c.file.width,
                (long long)c.file.steps, device->ops->description(device));
        status = run_all(&c);
    }
    if (status == 0 && c.failures)
        status = error_set(ERROR_MISMATCH, "%s: %d lines are out of bounds", path, c.failures);
    if (status == 0)
        fprintf(out, "%s: all within bounds\n", path);
    runtime_close(&c.run);
    if (c.tensors.device)
        store_close(&c.tensors);
    reference_close(&c.file);
    return status;
}

/* Owns the generator of reference problems: element i of the tensor NAME is a hash of (NAME, seed, i).
 * Pure functions; one thread. docs/formats.md gives the definition. */
#include "tools/reference_problem.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t name_hash(const char *name, int64_t seed)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h + (uint64_t)seed;
}

static uint64_t draw(uint64_t hash, int64_t index)
{
    uint64_t z = hash + ((uint64_t)index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double draw_unit(uint64_t hash, int64_t index)
{
    return (double)(draw(hash, index) >> 11) * 0x1p-53;
}

/* Each tensor is offset + range * u, u in [0, 1). */
typedef struct {
    double offset, range;
} affine;

static affine symmetric(double bound)
{
    return (affine){-bound, 2 * bound};
}

/* A norm is known by the running statistics beside its weight. */
static bool is_norm(const store *tensors, const char *parameter)
{
    char name[2 * GRAPH_NAME_BYTES];
    const char *dot = strrchr(parameter, '.');
    snprintf(name, sizeof name, "%.*s.running_mean", (int)(dot - parameter), parameter);
    return store_find(tensors, name) != NULL;
}

static affine distribution(const store *tensors, const store_entry *entry)
{
    const int32_t *d = entry->desc.dim;
    bool is_bias = strcmp(strrchr(entry->name, '.'), ".bias") == 0;
    if (is_norm(tensors, entry->name))
        return is_bias ? symmetric(0.2) : (affine){0.5, 1};
    if (is_bias)
        return symmetric(0.1);
    double fan_in = (double)d[1] * d[2] * d[3];
    return symmetric(sqrt(3) * sqrt((entry->desc.layout == LAYOUT_OHWI ? 2 : 1) / fan_in));
}

/* Computed in double, rounded once to float32, whatever the device computes in. */
static double element(uint64_t hash, int64_t index, affine a)
{
    return (float)(a.offset + a.range * draw_unit(hash, index));
}

static int fill_parameter(const store *tensors, store_entry *entry, int64_t seed)
{
    int64_t count = tensor_count(&entry->desc);
    double *values = malloc((size_t)count * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory for the weights of %s", entry->name);
    affine a = distribution(tensors, entry);
    uint64_t hash = name_hash(entry->name, seed);
    for (int64_t i = 0; i < count; i++)
        values[i] = element(hash, i, a);
    int status = store_import_f64(tensors->device, entry, values);
    free(values);
    return status;
}

int problem_fill_store(store *tensors, const reference_file *file)
{
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        store_entry *entry = &tensors->entries[i];
        if (entry->desc.kind == KIND_PARAMETER) {
            TRY(fill_parameter(tensors, entry, file->seed));
            continue;
        }
        if (!store_is_saved(entry->name) || store_role(entry->name) == ENTRY_SCALING)
            continue; /* zero, or somebody else's */
        const char *dot = strrchr(entry->name, '.');
        double *values = calloc((size_t)tensor_count(&entry->desc), sizeof *values);
        CHECK(values, ERROR_MEMORY, "no memory for %s", entry->name);
        for (int64_t k = 0; dot && strcmp(dot, ".running_var") == 0 && k < tensor_count(&entry->desc); k++)
            values[k] = 1;
        int status = store_import_f64(tensors->device, entry, values);
        free(values);
        TRY(status);
    }
    return store_refresh_copies(tensors);
}

static double input_element(const reference_file *file, int64_t index)
{
    return element(name_hash("input", file->seed), index, symmetric(sqrt(3)));
}

void problem_input_head(const reference_file *file, int count, double *values)
{
    for (int i = 0; i < count; i++)
        values[i] = input_element(file, i);
}

/* Images, as float32 or float64 in NHWC order. */
static int fill_input(const program *p, const runtime *r, const reference_file *file)
{
    const tensor_desc *desc;
    program_value(p, r, "input", &desc);
    const int32_t *d = desc->dim;
    bool wide = desc->dtype == DTYPE_F64;
    int64_t plane = (int64_t)d[1] * d[2], m = 0;
    void *values = malloc(tensor_bytes(desc));
    CHECK(values, ERROR_MEMORY, "no memory for the images");
    for (int64_t n = 0; n < d[0]; n++)
        for (int64_t pixel = 0; pixel < plane; pixel++)
            for (int64_t c = 0; c < d[3]; c++, m++) {
                double value = input_element(file, (n * d[3] + c) * plane + pixel);
                if (wide)
                    ((double *)values)[m] = value;
                else
                    ((float *)values)[m] = (float)value;
            }
    int status = program_write(p, r, "input", values, tensor_bytes(desc));
    free(values);
    return status;
}

void problem_targets(const reference_file *file, int32_t *target)
{
    uint64_t hash = name_hash("target", file->seed);
    for (int64_t n = 0; n < file->batch; n++)
        target[n] = (int32_t)(draw(hash, n) % (uint64_t)file->classes);
}

int problem_fill_inputs(const program *p, const runtime *r, const reference_file *file)
{
    int32_t *target = malloc((size_t)file->batch * sizeof *target);
    CHECK(target, ERROR_MEMORY, "no memory for the classes");
    problem_targets(file, target);
    int status = program_write(p, r, "target", target, (size_t)file->batch * sizeof *target);
    free(target);
    TRY(status);
    TRY(program_write(p, r, "lr", &file->lr, sizeof file->lr));
    return fill_input(p, r, file);
}

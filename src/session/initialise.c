/* Owns the starting values. Invariant: element i in file order is drawn from (seed, name, i) alone. One thread. */
#include "session/initialise.h"
#include "base/error.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

/* The first loss scale, and no steps counted. Too large a one is halved by the first steps. */
static const float loss_scaling[SCALING_NUMBERS] = {[SCALING_SCALE] = 65536};

static uint64_t name_stream(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return rng_stream(RNG_INITIALISATION, h);
}

static double draw(init_kind kind, double scale, uint64_t seed, uint64_t stream, uint64_t index)
{
    switch (kind) {
    case INIT_UNIFORM:
        return scale * (2 * rng_uniform(seed, stream, index) - 1);
    case INIT_NORMAL:
        return scale * rng_normal(seed, stream, index);
    default:
        return scale;
    }
}

static int fill(backend *device, store_entry *entry, init_kind kind, double scale, uint64_t seed)
{
    int64_t count = tensor_count(&entry->desc);
    double *values = malloc((size_t)count * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory to initialise %s", entry->name);
    uint64_t stream = name_stream(entry->name);
    for (int64_t i = 0; i < count; i++)
        values[i] = draw(kind, scale, seed, stream, (uint64_t)i);
    int status = store_import_f64(device, entry, values);
    free(values);
    return status;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

int initialise_store(store *tensors, const graph *g, const model *m, uint64_t seed)
{
    for (uint32_t i = 0; i < m->n_inits; i++) {
        store_entry *entry = store_find(tensors, g->values[m->inits[i].parameter].name);
        CHECK(entry, ERROR_INTERNAL, "%s is not in the store", g->values[m->inits[i].parameter].name);
        TRY(fill(tensors->device, entry, m->inits[i].kind, m->inits[i].scale, seed));
    }
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        store_entry *entry = &tensors->entries[i];
        if (store_role(entry->name) == ENTRY_SCALING)
            TRY(tensors->device->ops->write(tensors->device, entry->memory, loss_scaling, sizeof loss_scaling));
        if (entry->desc.kind == KIND_STATE && store_role(entry->name) == ENTRY_MODEL)
            TRY(fill(tensors->device, entry, INIT_CONSTANT, ends_with(entry->name, ".running_var"), seed));
    }
    return store_start_ema(tensors);
}

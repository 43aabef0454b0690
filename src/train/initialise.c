/* Owns the starting values. Invariant: element i in file order is drawn from (seed, name, i) alone. One thread. */
#include "train/initialise.h"
#include "base/error.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

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

static int fill(store_entry *entry, init_kind kind, double scale, uint64_t seed)
{
    int64_t count = tensor_count(&entry->desc);
    double *values = malloc((size_t)count * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory to initialise %s", entry->name);
    uint64_t stream = name_stream(entry->name);
    for (int64_t i = 0; i < count; i++)
        values[i] = draw(kind, scale, seed, stream, (uint64_t)i);
    store_import_f64(entry, values);
    free(values);
    return 0;
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
        TRY(fill(entry, m->inits[i].kind, m->inits[i].scale, seed));
    }
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        store_entry *entry = &tensors->entries[i];
        if (entry->desc.kind != KIND_STATE)
            continue;
        if (store_role(entry) == ENTRY_AVERAGE) /* after the parameters and statistics in the table */
            memcpy(entry->memory, store_find(tensors, strchr(entry->name, '/') + 1)->memory,
                   tensor_bytes(&entry->desc));
        else
            TRY(fill(entry, INIT_CONSTANT, ends_with(entry->name, ".running_var"), seed));
    }
    return 0;
}

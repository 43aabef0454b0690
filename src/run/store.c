/* Owns the memory of parameters and states. Invariant: entries never move. One thread. */
#include "run/store.h"
#include "base/error.h"
#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

static bool is_persistent(const tensor_desc *desc)
{
    return desc->kind == KIND_PARAMETER || desc->kind == KIND_STATE;
}

static const char *const role_prefixes[] = {
    [ENTRY_MODEL] = "", [ENTRY_MOMENTUM] = "momentum/", [ENTRY_AVERAGE] = "ema/", [ENTRY_ACCUMULATED] = "accumulated/"};

entry_role store_role(const store_entry *entry)
{
    for (int role = ENTRY_MOMENTUM; role <= ENTRY_ACCUMULATED; role++)
        if (strncmp(entry->name, role_prefixes[role], strlen(role_prefixes[role])) == 0)
            return (entry_role)role;
    return ENTRY_MODEL;
}

static int place_entries(store *s, const graph *g, const memory_plan *plan)
{
    s->entries = calloc(g->n_values, sizeof *s->entries);
    CHECK(s->entries, ERROR_MEMORY, "no memory for the table of %u tensors", g->n_values);
    for (int kind = KIND_PARAMETER; kind < KIND_COUNT; kind++) {
        if (kind != KIND_PARAMETER && kind != KIND_STATE)
            continue;
        s->arena_bytes[kind] = plan->arena_bytes[kind];
        s->arena[kind] = s->device->ops->alloc(s->device, plan->arena_bytes[kind]);
        CHECK(s->arena[kind], ERROR_MEMORY, "no memory for %zu bytes of parameters and their states",
              plan->arena_bytes[kind]);
        memset(s->arena[kind], 0, plan->arena_bytes[kind]);
    }
    for (value_id id = 1; id < g->n_values; id++) {
        const graph_value *value = &g->values[id];
        if (!is_persistent(&value->desc))
            continue;
        store_entry *entry = &s->entries[s->n_entries++];
        entry->desc = value->desc;
        entry->memory = (char *)s->arena[value->desc.kind] + plan->offset[id];
        memcpy(entry->name, value->name, sizeof entry->name);
    }
    return 0;
}

int store_open(store *s, backend *device, const graph *g)
{
    *s = (store){.device = device};
    memory_plan plan;
    TRY(plan_make(&plan, g));
    int status = place_entries(s, g, &plan);
    plan_free(&plan);
    if (status < 0)
        store_close(s);
    return status;
}

void store_close(store *s)
{
    for (int kind = 0; kind < KIND_COUNT; kind++)
        if (s->arena[kind])
            s->device->ops->free(s->device, s->arena[kind]);
    free(s->entries);
    *s = (store){0};
}

store_entry *store_find(const store *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i];
    return NULL;
}

void store_swap_averages(store *s)
{
    for (uint32_t i = 0; i < s->n_entries; i++) {
        if (store_role(&s->entries[i]) != ENTRY_AVERAGE)
            continue;
        const char *name = s->entries[i].name + strlen(role_prefixes[ENTRY_AVERAGE]);
        char *average = s->entries[i].memory, *current = store_find(s, name)->memory;
        for (size_t k = 0; k < tensor_bytes(&s->entries[i].desc); k++) {
            char kept = average[k];
            average[k] = current[k];
            current[k] = kept;
        }
    }
}

static bool is_statistic(const store *s, const store_entry *entry)
{
    if (store_role(entry) == ENTRY_AVERAGE)
        entry = store_find(s, entry->name + strlen(role_prefixes[ENTRY_AVERAGE]));
    return entry->desc.kind == KIND_STATE && store_role(entry) == ENTRY_MODEL;
}

size_t store_statistics(store *s, void *packed, bool to_store)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        store_entry *entry = &s->entries[i];
        if (!is_statistic(s, entry))
            continue;
        if (packed && to_store)
            memcpy(entry->memory, (char *)packed + bytes, tensor_bytes(&entry->desc));
        else if (packed)
            memcpy((char *)packed + bytes, entry->memory, tensor_bytes(&entry->desc));
        bytes += tensor_bytes(&entry->desc);
    }
    return bytes;
}

int store_file_shape(const tensor_desc *desc, int64_t shape[4])
{
    const int32_t *d = desc->dim;
    switch ((tensor_layout)desc->layout) {
    case LAYOUT_OHWI:
        shape[0] = d[0], shape[1] = d[3], shape[2] = d[1], shape[3] = d[2];
        return 4;
    case LAYOUT_OI:
        shape[0] = d[0], shape[1] = d[3];
        return 2;
    case LAYOUT_C:
        shape[0] = d[3];
        return 1;
    case LAYOUT_NHWC:
        break;
    }
    shape[0] = d[0], shape[1] = d[3], shape[2] = d[1], shape[3] = d[2];
    return 4;
}

/* One side of a copy: elements of float32 or float64. */
typedef struct {
    void *data;
    bool wide;
} elements;

static inline double element_get(elements e, int64_t index)
{
    return e.wide ? ((const double *)e.data)[index] : (double)((const float *)e.data)[index];
}

static inline void element_set(elements e, int64_t index, double value)
{
    if (e.wide)
        ((double *)e.data)[index] = value;
    else
        ((float *)e.data)[index] = (float)value;
}

/* Memory holds a weight as OHWI, files as OIHW. */
static void copy_elements(const tensor_desc *desc, elements memory, elements file, bool to_file)
{
    int64_t outputs = desc->dim[0], taps = (int64_t)desc->dim[1] * desc->dim[2], inputs = desc->dim[3];
    int64_t m = 0;
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = 0; i < inputs; i++, m++) {
                int64_t f = (o * inputs + i) * taps + tap;
                if (to_file)
                    element_set(file, f, element_get(memory, m));
                else
                    element_set(memory, m, element_get(file, f));
            }
}

static elements memory_of(const store_entry *entry)
{
    return (elements){entry->memory, entry->desc.dtype == DTYPE_F64};
}

void store_export(const store_entry *entry, void *file_order)
{
    copy_elements(&entry->desc, memory_of(entry), (elements){file_order, entry->desc.dtype == DTYPE_F64}, true);
}

void store_import(store_entry *entry, const void *file_order)
{
    elements file = {(void *)(uintptr_t)file_order, entry->desc.dtype == DTYPE_F64};
    copy_elements(&entry->desc, memory_of(entry), file, false);
}

void store_export_f64(const store_entry *entry, double *file_order)
{
    copy_elements(&entry->desc, memory_of(entry), (elements){file_order, true}, true);
}

void store_import_f64(store_entry *entry, const double *file_order)
{
    copy_elements(&entry->desc, memory_of(entry), (elements){(void *)(uintptr_t)file_order, true}, false);
}

/* Owns the memory of parameters and states. Invariant: an entry's memory never moves. One thread. */
#include "run/store.h"
#include "base/error.h"
#include "graph/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_prefixes[] = {[ENTRY_MODEL] = "",
                                            [ENTRY_MOMENTUM] = "momentum/",
                                            [ENTRY_EMA] = "ema/",
                                            [ENTRY_ACCUMULATED] = "accumulated/",
                                            [ENTRY_COPY] = "copy/",
                                            [ENTRY_DATA] = "data/",
                                            [ENTRY_SCALING] = LOSS_SCALE_STATE,
                                            [ENTRY_SUMS] = "loss_sums"};

entry_role store_role(const char *name)
{
    for (int role = ENTRY_MOMENTUM; role <= ENTRY_SUMS; role++)
        if (strncmp(name, role_prefixes[role], strlen(role_prefixes[role])) == 0)
            return (entry_role)role;
    return ENTRY_MODEL;
}

bool store_is_saved(const store_entry *entry)
{
    entry_role role = store_role(entry->name);
    return role == ENTRY_MODEL || role == ENTRY_MOMENTUM || role == ENTRY_EMA || role == ENTRY_SCALING;
}

store_entry *store_find(const store *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i];
    return NULL;
}

/* What an EMA or a copy belongs to. */
static store_entry *original_of(const store *s, const store_entry *entry)
{
    return store_find(s, strchr(entry->name, '/') + 1);
}

/* ---- room ---- */

static bool is_statistic(const store *s, const store_entry *entry)
{
    if (store_role(entry->name) == ENTRY_EMA)
        entry = original_of(s, entry);
    return entry->desc.kind == KIND_STATE && store_role(entry->name) == ENTRY_MODEL;
}

static size_t aligned(size_t bytes)
{
    return (bytes + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
}

/* Lists what the store lacks, without memory; returns the bytes that it needs. */
static size_t list_new(store *s, const graph *g)
{
    size_t bytes = 0;
    for (value_id id = 1; id < g->n_values; id++) {
        const graph_value *value = &g->values[id];
        bool persistent = value->desc.kind == KIND_PARAMETER || value->desc.kind == KIND_STATE;
        if (!persistent || store_find(s, value->name))
            continue;
        store_entry *entry = &s->entries[s->n_entries++];
        *entry = (store_entry){.desc = value->desc};
        memcpy(entry->name, value->name, sizeof entry->name);
        bytes += aligned(tensor_bytes(&value->desc));
    }
    return bytes;
}

static bool is_saved(const store *s, const store_entry *entry)
{
    (void)s;
    return store_is_saved(entry);
}

static bool is_any(const store *s, const store_entry *entry)
{
    (void)s;
    (void)entry;
    return true;
}

/* Places the wanted entries that have no place yet; returns where they end. */
static char *place_some(store *s, uint32_t first, bool (*wanted)(const store *s, const store_entry *entry), char *next)
{
    for (uint32_t i = first; i < s->n_entries; i++)
        if (!s->entries[i].memory && wanted(s, &s->entries[i])) {
            s->entries[i].memory = next;
            next += aligned(tensor_bytes(&s->entries[i].desc));
        }
    return next;
}

/* The statistics first, so that ranks can add them up in one piece; with the rest of what is saved they are looked at
 * in one piece. All of it comes with the first graph. */
static void place(store *s, uint32_t first, char *memory)
{
    char *after_statistics = place_some(s, first, is_statistic, memory);
    char *after_saved = place_some(s, first, is_saved, after_statistics);
    place_some(s, first, is_any, after_saved);
    if (after_statistics > memory) {
        s->statistics = memory;
        s->statistics_bytes = (size_t)(after_statistics - memory);
    }
    if (after_saved > memory)
        s->saved = (store_arena){memory, (size_t)(after_saved - memory)};
}

int store_add(store *s, const graph *g)
{
    uint32_t first = s->n_entries;
    store_entry *entries = realloc(s->entries, (first + g->n_values) * sizeof *entries);
    CHECK(entries, ERROR_MEMORY, "no memory for the table of %u tensors", g->n_values);
    s->entries = entries;
    store_arena *arenas = realloc(s->arenas, (s->n_arenas + 1) * sizeof *arenas);
    CHECK(arenas, ERROR_MEMORY, "no memory for the table of tensors");
    s->arenas = arenas;
    size_t bytes = list_new(s, g);
    if (bytes == 0)
        return 0;
    void *memory = s->device->ops->alloc(s->device, bytes);
    if (!memory) {
        s->n_entries = first;
        return error_set(ERROR_MEMORY, "no memory for %zu bytes of parameters and their states", bytes);
    }
    s->arenas[s->n_arenas++] = (store_arena){memory, bytes};
    place(s, first, memory);
    return s->device->ops->zero(s->device, memory, bytes);
}

int store_open(store *s, backend *device, const graph *g)
{
    *s = (store){.device = device};
    int status = store_add(s, g);
    if (status < 0)
        store_close(s);
    return status;
}

void store_close(store *s)
{
    for (uint32_t i = 0; i < s->n_arenas; i++)
        s->device->ops->free(s->device, s->arenas[i].memory);
    free(s->arenas);
    free(s->entries);
    *s = (store){0};
}

/* ---- copies within the device ---- */

static size_t largest_entry(const store *s)
{
    size_t bytes = 1;
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (tensor_bytes(&s->entries[i].desc) > bytes)
            bytes = tensor_bytes(&s->entries[i].desc);
    return bytes;
}

static int swap_all(store *s, void *spare)
{
    const backend_ops *ops = s->device->ops;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const store_entry *ema = &s->entries[i];
        if (store_role(ema->name) != ENTRY_EMA)
            continue;
        const store_entry *current = original_of(s, ema);
        size_t bytes = tensor_bytes(&ema->desc);
        TRY(ops->copy(s->device, spare, ema->memory, bytes));
        TRY(ops->copy(s->device, ema->memory, current->memory, bytes));
        TRY(ops->copy(s->device, current->memory, spare, bytes));
    }
    return ops->synchronize(s->device); /* before the spare memory goes */
}

int store_swap_ema(store *s)
{
    void *spare = s->device->ops->alloc(s->device, largest_entry(s));
    CHECK(spare, ERROR_MEMORY, "no memory to exchange the weights with their EMA");
    int status = swap_all(s, spare);
    s->device->ops->free(s->device, spare);
    return status < 0 ? status : store_refresh_copies(s);
}

int store_start_ema(store *s)
{
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const store_entry *ema = &s->entries[i];
        if (store_role(ema->name) == ENTRY_EMA)
            TRY(s->device->ops->copy(s->device, ema->memory, original_of(s, ema)->memory, tensor_bytes(&ema->desc)));
    }
    return 0;
}

static int convert(backend *device, const store_entry *from, const store_entry *to)
{
    kernel_request request = {.node = {.op = OP_CONVERT, .n_in = 1, .n_out = 1}, .label = to->name};
    kernel *conversion = NULL;
    size_t workspace = 0;
    request.in[0] = from->desc;
    request.out[0] = to->desc;
    TRY(device->ops->prepare(device, &request, &conversion, &workspace));
    const kernel_args args = {.in = {from->memory}, .out = {to->memory}};
    int status = device->ops->launch(device, conversion, &args);
    device->ops->release(device, conversion);
    return status;
}

int store_refresh_copies(store *s)
{
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (store_role(s->entries[i].name) == ENTRY_COPY)
            TRY(convert(s->device, original_of(s, &s->entries[i]), &s->entries[i]));
    return 0;
}

/* ---- a look at all of it ---- */

static int count_not_finite(const store *s, const kernel_request *request, int64_t *count)
{
    backend *device = s->device;
    const backend_ops *ops = device->ops;
    kernel *k = NULL;
    size_t workspace = 0;
    double found = 0;
    TRY(ops->prepare(device, request, &k, &workspace));
    char *memory = ops->alloc(device, PLAN_ALIGNMENT + workspace);
    const kernel_args args = {.in = {s->saved.memory}, .out = {memory}, .workspace = memory + PLAN_ALIGNMENT};
    int status = memory ? ops->launch(device, k, &args)
                        : error_set(ERROR_MEMORY, "no memory to look for numbers that are not finite");
    if (status == 0)
        status = ops->read(device, &found, memory, sizeof found);
    ops->free(device, memory);
    ops->release(device, k);
    *count = (int64_t)found;
    return status;
}

/* The gaps between the tensors are zero. */
int store_count_not_finite(const store *s, int64_t *count)
{
    enum { ROW = 8 }; /* so that the rows of large networks can be counted in 32 bits */
    dtype real = s->device->ops->real;
    tensor_desc all = {.dim = {1, 1, (int32_t)(s->saved.bytes / (ROW * dtype_bytes(real))), ROW},
                       .dtype = (uint8_t)real,
                       .layout = LAYOUT_NHWC,
                       .kind = KIND_STATE};
    kernel_request request = {.node = {.op = OP_COUNT_NOT_FINITE, .n_in = 1, .n_out = 1}, .label = "what is saved"};
    request.in[0] = all;
    request.out[0] =
        (tensor_desc){.dim = {1, 1, 1, 1}, .dtype = DTYPE_F64, .layout = LAYOUT_C, .kind = KIND_ACTIVATION};
    return count_not_finite(s, &request, count);
}

/* ---- to and from files ---- */

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

static bool is_wide(const store_entry *entry)
{
    return entry->desc.dtype == DTYPE_F64;
}

static int move(backend *device, const store_entry *entry, elements file, bool to_file)
{
    size_t bytes = tensor_bytes(&entry->desc);
    CHECK(entry->desc.dtype == DTYPE_F32 || is_wide(entry), ERROR_INTERNAL, "%s is %s, which no file holds",
          entry->name, dtype_name(entry->desc.dtype));
    void *staged = malloc(bytes);
    CHECK(staged, ERROR_MEMORY, "no memory to copy %s", entry->name);
    int status = to_file ? device->ops->read(device, staged, entry->memory, bytes) : 0;
    if (status == 0)
        copy_elements(&entry->desc, (elements){staged, is_wide(entry)}, file, to_file);
    if (status == 0 && !to_file)
        status = device->ops->write(device, entry->memory, staged, bytes);
    free(staged);
    return status;
}

int store_export(backend *device, const store_entry *entry, void *file_order)
{
    return move(device, entry, (elements){file_order, is_wide(entry)}, true);
}

int store_import(backend *device, const store_entry *entry, const void *file_order)
{
    return move(device, entry, (elements){(void *)(uintptr_t)file_order, is_wide(entry)}, false);
}

int store_export_f64(backend *device, const store_entry *entry, double *file_order)
{
    return move(device, entry, (elements){file_order, true}, true);
}

static int is_finite(const store *s, const store_entry *entry, bool *finite)
{
    const int64_t count = tensor_count(&entry->desc);
    double *values = malloc((size_t)count * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory to look at %s", entry->name);
    int status = store_export_f64(s->device, entry, values);
    *finite = true;
    for (int64_t i = 0; i < count && status == 0; i++)
        *finite = *finite && isfinite(values[i]);
    free(values);
    return status;
}

int store_find_not_finite(const store *s, const store_entry **found)
{
    bool finite = true;
    *found = NULL;
    for (uint32_t i = 0; i < s->n_entries && finite; i++)
        if (store_is_saved(&s->entries[i])) {
            TRY(is_finite(s, &s->entries[i], &finite));
            *found = finite ? NULL : &s->entries[i];
        }
    return 0;
}

int store_import_f64(backend *device, const store_entry *entry, const double *file_order)
{
    return move(device, entry, (elements){(void *)(uintptr_t)file_order, true}, false);
}

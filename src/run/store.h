/* Parameters and states: the memory that outlives programs, by name. */
#ifndef TESKD_RUN_STORE_H
#define TESKD_RUN_STORE_H

#include "graph/graph.h"
#include "kernels/backend.h"

typedef struct {
    char name[GRAPH_NAME_BYTES];
    tensor_desc desc;
    void *memory; /* device layout, dtype of the backend */
} store_entry;

typedef struct {
    backend *device;
    uint32_t n_entries;
    store_entry *entries;
    void *arena[KIND_COUNT]; /* one allocation for the parameters, one for the states */
    size_t arena_bytes[KIND_COUNT];
} store;

/* What an entry is for, by the prefix of its name. */
typedef enum {
    ENTRY_MODEL,      /* parameters and running statistics */
    ENTRY_MOMENTUM,   /* "momentum/<parameter>" */
    ENTRY_AVERAGE,    /* "ema/<parameter or statistic>" */
    ENTRY_ACCUMULATED /* "accumulated/<parameter>": lives within a step only */
} entry_role;
entry_role store_role(const store_entry *entry);

/* Makes room for every parameter and state of the graph; all zero at first. */
int store_open(store *s, backend *device, const graph *g);
void store_close(store *s);

/* The entry of that name, or NULL. */
store_entry *store_find(const store *s, const char *name);

/* Exchanges every entry with its average; a second call undoes it. */
void store_swap_averages(store *s);

/* Copies the running statistics and their averages, one after the other, out of the store or back into it; returns
 * their bytes. `packed` NULL only counts. */
size_t store_statistics(store *s, void *packed, bool to_store);

/* The tensor's shape in files (1, 2 or 4 dimensions, PyTorch order); returns their number. */
int store_file_shape(const tensor_desc *desc, int64_t shape[4]);

/* Copies between the entry and a buffer in file order (row-major PyTorch layout) of the entry's dtype. */
void store_export(const store_entry *entry, void *file_order);
void store_import(store_entry *entry, const void *file_order);

/* The same with float64 elements on the caller's side, rounded once to the entry's dtype. */
void store_export_f64(const store_entry *entry, double *file_order);
void store_import_f64(store_entry *entry, const double *file_order);

#endif

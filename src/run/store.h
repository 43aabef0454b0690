/* Parameters and states: the memory that outlives programs, by name. */
#ifndef TESKD_RUN_STORE_H
#define TESKD_RUN_STORE_H

#include "graph/graph.h"
#include "kernels/backend.h"

typedef struct {
    char name[GRAPH_NAME_BYTES];
    tensor_desc desc;
    void *memory; /* of the device, in its layout and dtype */
} store_entry;

typedef struct {
    void *memory;
    size_t bytes;
} store_arena;

typedef struct {
    backend *device;
    uint32_t n_entries, n_arenas;
    store_entry *entries;
    store_arena *arenas;
    void *statistics; /* where the running statistics and their EMA lie one after the other */
    size_t statistics_bytes;
    store_arena saved; /* what a checkpoint holds, one after the other: the statistics, then the rest */
} store;

/* What a tensor is for, by the beginning of its name. */
typedef enum {
    ENTRY_MODEL,       /* parameters and running statistics */
    ENTRY_MOMENTUM,    /* "momentum/<parameter>" */
    ENTRY_EMA,         /* "ema/<parameter or statistic>" */
    ENTRY_ACCUMULATED, /* "accumulated/<parameter>": lives within a step only */
    ENTRY_COPY,        /* "copy/<parameter>": the parameter in the dtype of activations */
    ENTRY_DATA,        /* "data/<what>": images */
    ENTRY_SCALING,     /* "loss_scale" */
    ENTRY_SUMS         /* "loss_sums": lives between two lines of the log */
} entry_role;
entry_role store_role(const char *name);

/* Does a checkpoint hold the entry? */
bool store_is_saved(const store_entry *entry);

/* Makes room for every parameter and state of the graph; all zero at first. */
int store_open(store *s, backend *device, const graph *g);
void store_close(store *s);

/* The same for those of a further graph that are not there yet. Entries that are there keep their memory; pointers to
 * entries do not survive. */
int store_add(store *s, const graph *g);

/* The entry of that name, or NULL. */
store_entry *store_find(const store *s, const char *name);

/* Exchanges every entry with its EMA; a second call undoes it. */
int store_swap_ema(store *s);

/* Makes each EMA equal to what it is of. */
int store_start_ema(store *s);

/* Makes the copies anew; to be called after parameters were written from outside. */
int store_refresh_copies(store *s);

/* How many numbers of what a checkpoint holds are infinite or none: one pass on the device. Waits for it. */
int store_count_not_finite(const store *s, int64_t *count);

/* The first entry of those that holds such a number, in the order of the network; NULL where none does. */
int store_find_not_finite(const store *s, const store_entry **found);

/* The tensor's shape in files (1, 2 or 4 dimensions, PyTorch order); returns their number. */
int store_file_shape(const tensor_desc *desc, int64_t shape[4]);

/* Copies between a tensor in the device's memory and a buffer in file order (row-major PyTorch layout) of its dtype,
 * which is float32 or float64. */
int store_export(backend *device, const store_entry *entry, void *file_order);
int store_import(backend *device, const store_entry *entry, const void *file_order);

/* The same with float64 elements on the caller's side, rounded once to the entry's dtype. */
int store_export_f64(backend *device, const store_entry *entry, double *file_order);
int store_import_f64(backend *device, const store_entry *entry, const double *file_order);

#endif

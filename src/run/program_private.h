/* What the making, the preparing and the binding of programs share. */
#ifndef TESKD_RUN_PROGRAM_PRIVATE_H
#define TESKD_RUN_PROGRAM_PRIVATE_H

#include "run/program.h"

/* Programs take turns in the memory of these kinds. */
static inline bool is_shared_kind(int kind)
{
    return kind == KIND_INPUT || kind == KIND_GRADIENT || kind == KIND_ACTIVATION;
}

/* The reduction's calls within a run; there has to be one. */
int sums_start(runtime *r, void *data, size_t count, comm_dtype type);
int sums_advance(runtime *r);
int sums_finish(runtime *r);
int sums_now(runtime *r, void *data, size_t count, comm_dtype type);

/* Releases what the program holds, however far it came, and frees it. */
void program_free(program *p, backend *device);

/* Where a value lies on the device; NULL for VALUE_NONE, and for what the store lacks. */
void *program_memory(const runtime *r, const program *p, value_id id);

/* Called after each launch, before its results are reduced or overwritten. */
typedef struct {
    int (*function)(void *context, const program_launch *launch);
    void *context;
} launch_look;

/* Runs the program uncaptured, and waits. Every rank looks, or none. */
int program_run_looking(runtime *r, program *p, const launch_look *look);

#endif

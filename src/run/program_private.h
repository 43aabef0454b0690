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

#endif

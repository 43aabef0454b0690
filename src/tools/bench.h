/* Times training steps and says where the time goes. */
#ifndef TESKD_TOOLS_BENCH_H
#define TESKD_TOOLS_BENCH_H

#include "session/session.h"

typedef struct {
    int steps;     /* timed ones; two more warm up */
    bool json;     /* one line of JSON: images_per_second, step_ms (median), gflops, matmul_gflops, exposed_ms, ... */
    bool per_node; /* a line for every node */
} bench_options;

/* The session must have its training set open and no program yet. Every rank calls it. */
int bench_training(session *e, const bench_options *options);

/* FLOP/s of a square matrix product of that size, in the fastest of a few runs. */
int bench_matmul(backend *device, int32_t size, double *flops);

#endif

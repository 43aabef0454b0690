/* The model of a step on many GPUs: each computes, sums travel meanwhile, and the step ends when both are done.
 *
 * Pure arithmetic on a description of the step and of the cluster; what each number means and how the model was checked
 * is in docs/scaling.md. Times are seconds, sizes bytes.
 */
#ifndef TESKD_TOOLS_PLAN_MODEL_H
#define TESKD_TOOLS_PLAN_MODEL_H

#include <stdbool.h>

/* Who sends to whom. With N GPUs on H hosts a sum takes so many hops one after the other. */
typedef enum {
    PATTERN_TREE,      /* 2 log2 H: NCCL's tree, halving and doubling */
    PATTERN_RING,      /* 2 (N - 1): NCCL's ring through all GPUs */
    PATTERN_HOST_RING, /* 2 (H - 1): sums within hosts, then between them one after another; as over MPI */
    PATTERNS
} sum_pattern;

extern const char *const sum_pattern_names[PATTERNS];

typedef enum {
    SUM_BUCKET,    /* of gradients: launches go on */
    SUM_STATISTICS /* of batch normalisation: the next launch waits for it and for all sums before it */
} plan_sum_kind;

/* `at`: share of a GPU's own step after which it may start. Sums are in that order. */
typedef struct {
    double bytes, at;
    plan_sum_kind kind;
} plan_sum;

/* One step of one GPU. The updates wait for all sums that are ready by then. */
typedef struct {
    double seconds; /* without any sum */
    double updates; /* share of them after which the updates begin */
    plan_sum *sums;
    int n_sums;
} plan_timeline;

typedef struct {
    int hosts, gpus;      /* GPUs of each host */
    double inside;        /* bytes per second in and out of a GPU within its host */
    double net;           /* bytes per second that a host's adapters send, all together */
    double net_share;     /* of `net` that a sum reaches */
    double hop_seconds;   /* from a GPU to the next one of the pattern, on several hosts */
    double start_seconds; /* of a sum, whatever its size */
    double noise;         /* standard deviation of the time a host takes for a step, as a share of it */
    sum_pattern pattern;
} plan_cluster;

/* The parts of a step: step = alone + straggling + exposed. */
typedef struct {
    double alone;      /* one GPU by itself */
    double straggling; /* the slowest host takes so much longer */
    double exposed;    /* waiting for sums */
    double step;
} plan_time;

/* Bytes that a host sends through its adapters for a sum of so many. */
double plan_bytes_sent(const plan_cluster *c, double bytes);

/* Seconds of one sum by itself. */
double plan_all_reduce(const plan_cluster *c, double bytes);

/* `ends`, NULL or one per sum, becomes the time at which each is done. */
plan_time plan_predict(const plan_timeline *step, const plan_cluster *c, double *ends);

#endif

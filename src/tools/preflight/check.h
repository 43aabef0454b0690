/* What the checks of `teskd preflight` share. A check is a function that fills in a finding, and a row of the table in
 * preflight.c that says how the ranks' findings are compared. */
#ifndef TESKD_TOOLS_PREFLIGHT_CHECK_H
#define TESKD_TOOLS_PREFLIGHT_CHECK_H

#include "session/session.h"
#include "tools/preflight/preflight.h"

enum { FINDING_TEXT_BYTES = 700, FINDING_PROBLEM_BYTES = 1200, HOST_NAME_BYTES = 64 };

/* A note is told, but does not fail the preflight. */
typedef enum { VERDICT_NONE, VERDICT_FINE, VERDICT_NOTE, VERDICT_FAULT } verdict;

/* What one rank found. A check of hosts is left empty by all ranks of a host but the first. */
typedef struct {
    verdict verdict;                     /* VERDICT_NONE: this rank had nothing to look at */
    double value;                        /* what ranks are compared by; NAN: nothing */
    char text[FINDING_TEXT_BYTES];       /* what was found */
    char problem[FINDING_PROBLEM_BYTES]; /* what is wrong with it; empty where nothing is */
} finding;

/* All-reduces of the sizes of preflight_sizes, among one group of ranks. */
enum { PREFLIGHT_SIZES = 5 };
extern const size_t preflight_sizes[PREFLIGHT_SIZES];
typedef struct {
    const char *among; /* NULL: there is no such group */
    const char *way;   /* what carries the sums: "MPI" */
    int ranks, measured;
    double seconds[PREFLIGHT_SIZES];
} sum_curve;

typedef enum { SUMS_OF_ALL, SUMS_BETWEEN_HOSTS, SUMS_INSIDE_HOST, SUM_GROUPS } sum_group;

/* Of this rank's host, NAN on ranks that measured nothing. Rates in MB/s: of one transfer at a time, and of the largest
 * sum inside the host. */
typedef struct {
    double sends, receives, inside;
    double latency; /* microseconds */
    double clock;   /* milliseconds ahead of rank 0's host */
    sum_curve sums[SUM_GROUPS];
} network_figures;

typedef struct {
    char host[HOST_NAME_BYTES];
    int32_t leader; /* the lowest rank on that host */
} preflight_place;

/* Checks in a thread of their own see nothing but this, unchanged. */
typedef struct {
    settings config;
    preflight_options options;
    logger *log;
    comm *ranks;
    const comm_info *info;
    session e; /* without data */
    bool has_device;
    char device_problem[FINDING_PROBLEM_BYTES]; /* why there is none, on the rank that is to blame */
    int hosts;
    preflight_place *places; /* one per rank */
    network_figures network;
} preflight;

typedef enum {
    COMPARE_NOTHING,
    COMPARE_TEXT, /* all ranks should have found the same */
    COMPARE_MORE, /* a value below `limit` times that of half of the hosts is a fault */
    COMPARE_LESS, /* one above `limit` times it is */
    COMPARE_NEAR  /* one further than `limit` from the middle is */
} comparison;

typedef struct {
    const char *name, *unit;
    /* A failure of a check `alone` is a fault of this rank's; of another one it ends the preflight. */
    int (*run)(const preflight *p, finding *mine);
    comparison compare;
    double limit;
    bool alone;     /* looks at this host only: runs in a thread of its own, so that it may stall */
    bool only_note; /* a difference is no fault */
} preflight_check;

/* The first rank of each host looks at what the host has. */
static inline bool preflight_leads(const preflight *p)
{
    return p->info->local_rank == 0;
}

/* The checks, by the file that has them. */
int check_program(const preflight *p, finding *mine); /* host.c */
int check_libraries(const preflight *p, finding *mine);
int check_device(const preflight *p, finding *mine);
int check_cores(const preflight *p, finding *mine);
int check_compute(const preflight *p, finding *mine);
int check_gpus(const preflight *p, finding *mine); /* gpu.c */
int check_gpu_state(const preflight *p, finding *mine);
int check_data(const preflight *p, finding *mine); /* disk.c */
int check_data_read(const preflight *p, finding *mine);
int check_stage(const preflight *p, finding *mine);
int check_output(const preflight *p, finding *mine);
int check_clock(const preflight *p, finding *mine); /* network.c */
int check_latency(const preflight *p, finding *mine);
int check_sends(const preflight *p, finding *mine);
int check_receives(const preflight *p, finding *mine);
int check_inside(const preflight *p, finding *mine);

/* Fills in p->network. Every rank calls it. */
int preflight_measure_network(preflight *p);

/* With whom host `host` of `hosts` is paired in a round; -1: with nobody. In hosts - 1 rounds (hosts, where their
 * number is odd) each meets each other one. */
int preflight_partner(int host, int round, int hosts);

/* Compares the findings of all ranks of one check, and makes faults and notes of what stands out. ERROR_MEMORY
 * only. */
int preflight_judge(const preflight_check *check, finding *found, int ranks);

/* What half of the values reach: at least that (more is better), or at most that. NAN among them is left
 * out. Reorders them. */
double preflight_typical(double *values, int count, bool more_is_better);

/* Prints; `found` is [n_checks][ranks]. Rank 0. */
void preflight_print(const preflight *p, const preflight_check *checks, int n_checks, const finding *found);
int preflight_print_json(const preflight *p, const preflight_check *checks, int n_checks, const finding *found);

/* In MB/s, of 2 (n - 1) / n times the sum's bytes: as many as a ring sends from each of n ranks. */
double preflight_sum_rate(const sum_curve *curve, int size);

#endif

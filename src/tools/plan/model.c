/* Owns the formula of a step on many GPUs. Holds no state; any thread. */
#include "tools/plan/model.h"

#include <math.h>
#include <stddef.h>

const char *const sum_pattern_names[PATTERNS] = {
    [PATTERN_TREE] = "tree", [PATTERN_RING] = "ring", [PATTERN_HOST_RING] = "host-ring"};

static int all_gpus(const plan_cluster *c)
{
    return c->hosts * c->gpus;
}

/* What each of n sends so that all get the sum: all but its own part, there and back. */
static double ring_bytes(int n, double bytes)
{
    return 2.0 * (n - 1) / n * bytes;
}

double plan_bytes_sent(const plan_cluster *c, double bytes)
{
    return ring_bytes(c->hosts, bytes);
}

static double hops(const plan_cluster *c)
{
    if (c->hosts == 1)
        return 0;
    switch (c->pattern) {
    case PATTERN_TREE:
        return 2 * log2(c->hosts);
    case PATTERN_HOST_RING:
        return 2.0 * (c->hosts - 1);
    default:
        return 2.0 * (all_gpus(c) - 1);
    }
}

/* A sum goes in chunks through host and network at once, so the slower of the two counts. */
double plan_all_reduce(const plan_cluster *c, double bytes)
{
    if (all_gpus(c) == 1)
        return 0;
    const double inside = ring_bytes(c->gpus, bytes) / c->inside;
    const double between = plan_bytes_sent(c, bytes) / (c->net * c->net_share);
    return fmax(inside, between) + hops(c) * c->hop_seconds + c->start_seconds;
}

/* The largest of H normally distributed numbers lies about sqrt(2 ln H) deviations above the mean. */
static double slowest(const plan_cluster *c)
{
    return 1 + c->noise * sqrt(2 * log(c->hosts));
}

/* Where the GPUs and their sums have got to. */
typedef struct {
    double scale;  /* seconds per share of a step */
    double waited; /* so far */
    double busy;   /* until when sums are under way */
} progress;

static void wait_for_sums(progress *p, double at)
{
    p->waited += fmax(0, p->busy - (at * p->scale + p->waited));
}

plan_time plan_predict(const plan_timeline *step, const plan_cluster *c, double *ends)
{
    progress p = {.scale = step->seconds * slowest(c)};
    bool updating = false;
    for (int i = 0; i < step->n_sums; i++) {
        const plan_sum *sum = &step->sums[i];
        if (!updating && sum->at > step->updates) {
            wait_for_sums(&p, step->updates);
            updating = true;
        }
        p.busy = fmax(p.busy, sum->at * p.scale + p.waited) + plan_all_reduce(c, sum->bytes);
        if (ends)
            ends[i] = p.busy;
        if (sum->kind == SUM_STATISTICS)
            wait_for_sums(&p, sum->at);
    }
    if (!updating)
        wait_for_sums(&p, step->updates);
    return (plan_time){
        .alone = step->seconds, .straggling = p.scale - step->seconds, .exposed = p.waited, .step = p.scale + p.waited};
}

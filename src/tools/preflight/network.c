/* Owns the measurements between ranks. Times are taken by the first rank of a group and handed to the others, so that
 * all decide alike how often something is repeated. One thread. */
#include "base/clock.h"
#include "base/error.h"
#include "tools/preflight/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const size_t preflight_sizes[PREFLIGHT_SIZES] = {(size_t)4 << 10, (size_t)64 << 10, (size_t)1 << 20, (size_t)16 << 20,
                                                 (size_t)64 << 20};
enum {
    PAIR_BYTES = 8 << 20,
    ROUNDS_MOST = 7, /* of pairs: each host meets so many others */
    TRANSFERS = 8,
    EXCHANGES = 30,
    SUMS_MOST = 20,
    CLOCK_READINGS = 10
};
static const double sums_seconds = 0.2, slow_sum = 1, slowest_sum = 2, transfers_seconds = 0.4, pairs_seconds = 4;

/* Of the group's first rank, on all. */
static int seconds_since(comm *group, double begin, double *seconds)
{
    *seconds = clock_seconds() - begin;
    return comm_broadcast(group, seconds, sizeof *seconds, 0);
}

/* ---- all-reduces by size ---- */

/* Sums in the host's memory by `ranks`, or those of a step's gradients, where there is a reducer. */
typedef struct {
    comm *ranks;
    backend *device;
    reduction *reducer;
    void *data;
} summing;

static int sum_once(const summing *s, size_t bytes)
{
    const size_t count = bytes / sizeof(float);
    if (!s->reducer)
        return comm_all_reduce(s->ranks, s->data, count, COMM_F32);
    TRY(s->reducer->ops->sum(s->reducer, s->data, count, COMM_F32));
    return s->reducer->ops->synchronize(s->reducer);
}

static int time_sums(const summing *s, size_t bytes, int repeats, double *seconds)
{
    TRY(comm_barrier(s->ranks));
    const double begin = clock_seconds();
    for (int i = 0; i < repeats; i++)
        TRY(sum_once(s, bytes));
    TRY(seconds_since(s->ranks, begin, seconds));
    *seconds /= repeats;
    return 0;
}

/* The first sum connects the ranks; it counts where it alone takes long. */
static int time_size(const summing *s, size_t bytes, double *seconds)
{
    TRY(time_sums(s, bytes, 1, seconds));
    if (*seconds > slow_sum)
        return 0;
    const int repeats = (int)fmin(SUMS_MOST, fmax(1, sums_seconds / *seconds));
    return time_sums(s, bytes, repeats, seconds);
}

static int time_sizes(const summing *s, sum_curve *curve)
{
    double last = 0;
    for (int i = 0; i < PREFLIGHT_SIZES && last < slowest_sum; i++) {
        TRY(time_size(s, preflight_sizes[i], &curve->seconds[i]));
        last = curve->seconds[i];
        curve->measured++;
    }
    return 0;
}

static int take_memory(summing *s, size_t bytes)
{
    s->data = s->reducer ? s->device->ops->alloc(s->device, bytes) : calloc(1, bytes);
    CHECK(s->data, ERROR_MEMORY, "no memory to sum %zu bytes", bytes);
    return s->reducer ? s->device->ops->zero(s->device, s->data, bytes) : 0;
}

static void give_memory(const summing *s)
{
    if (!s->reducer)
        free(s->data);
    else if (s->data)
        s->device->ops->free(s->device, s->data);
}

static int measure_sums(const preflight *p, summing *s, sum_curve *curve)
{
    int status = comm_agree(p->ranks, take_memory(s, preflight_sizes[PREFLIGHT_SIZES - 1]));
    curve->ranks = comm_describe(s->ranks)->size;
    if (status == 0 && curve->ranks > 1)
        status = time_sizes(s, curve);
    if (status == 0)
        give_memory(s); /* after a failure a sum may be under way */
    return status;
}

static int measure_sums_of_all(preflight *p)
{
    sum_curve *curve = &p->network.sums[SUMS_OF_ALL];
    summing s = {.ranks = p->ranks};
    curve->among = "all ranks";
    curve->way = "MPI";
    if (p->has_device && p->e.reducer) {
        s.device = p->e.device;
        s.reducer = p->e.reducer;
        curve->way = s.reducer->ops->name;
    }
    return measure_sums(p, &s, curve);
}

/* In a part of the ranks, which may be this one alone. */
static int measure_part(preflight *p, comm *part, const char *among, sum_group group)
{
    sum_curve *curve = &p->network.sums[group];
    summing s = {.ranks = part};
    if (part) {
        *curve = (sum_curve){.among = comm_describe(part)->size > 1 ? among : NULL, .way = "MPI"};
        return measure_sums(p, &s, curve);
    }
    return comm_agree(p->ranks, 0); /* on the others' memory */
}

/* Has that group been measured already, as all ranks, and by the same way? */
static bool is_all(const preflight *p, bool group_is_all)
{
    return group_is_all && (!p->has_device || p->e.device->ops->host_memory);
}

/* ---- pairs of hosts ---- */

int preflight_partner(int host, int round, int hosts)
{
    const int places = hosts + hosts % 2, turning = places - 1; /* the last place stands still, or is empty */
    int partner = host == turning ? round * (places / 2) % turning : ((round - host) % turning + turning) % turning;
    if (partner == host)
        partner = turning;
    return partner < hosts ? partner : -1;
}

static int time_exchange(comm *pair, double *seconds)
{
    *seconds = INFINITY;
    for (int i = 0; i < EXCHANGES; i++) {
        double number = 0;
        const double begin = clock_seconds();
        TRY(comm_all_reduce(pair, &number, 1, COMM_F64));
        *seconds = fmin(*seconds, clock_seconds() - begin);
    }
    return 0;
}

/* The fastest of a few transfers from `root`; the first one connects. */
static int time_transfer(comm *pair, void *data, int root, double *best)
{
    double seconds, spent = 0;
    *best = INFINITY;
    for (int i = 0; i < TRANSFERS && spent < transfers_seconds; i++) {
        TRY(comm_barrier(pair));
        const double begin = clock_seconds();
        TRY(comm_broadcast(pair, data, PAIR_BYTES, root));
        TRY(comm_barrier(pair));
        TRY(seconds_since(pair, begin, &seconds));
        *best = fmin(*best, seconds);
        spent += seconds;
    }
    return 0;
}

typedef struct {
    double latency[ROUNDS_MOST], sends[ROUNDS_MOST], receives[ROUNDS_MOST];
} pair_times;

static int measure_pair(comm *pair, void *data, int round, pair_times *times)
{
    double by_root[2];
    const int me = comm_describe(pair)->rank;
    TRY(time_exchange(pair, &times->latency[round]));
    for (int root = 0; root < 2; root++)
        TRY(time_transfer(pair, data, root, &by_root[root]));
    times->sends[round] = PAIR_BYTES / by_root[me] / 1e6;
    times->receives[round] = PAIR_BYTES / by_root[1 - me] / 1e6;
    return 0;
}

static int run_round(comm *leaders, void *data, int round, pair_times *times)
{
    const comm_info *info = comm_describe(leaders);
    const int partner = preflight_partner(info->rank, round, info->size);
    comm *pair;
    times->latency[round] = times->sends[round] = times->receives[round] = NAN;
    TRY(comm_split(leaders, partner < 0 ? -1 : partner < info->rank ? partner : info->rank, &pair));
    if (pair)
        TRY(measure_pair(pair, data, round, times));
    comm_close(pair);
    return 0;
}

/* All pairs of a round at the same time, as in training. A host is as fast as with half of those it met: so the
 * partners of a slow one do not look slow. */
static int measure_pairs(comm *leaders, void *data, network_figures *network)
{
    pair_times times;
    const int hosts = comm_describe(leaders)->size, all = hosts - 1 + hosts % 2;
    const double begin = clock_seconds();
    int rounds = 0;
    for (double seconds = 0; rounds < all && rounds < ROUNDS_MOST && seconds < pairs_seconds; rounds++) {
        TRY(run_round(leaders, data, rounds, &times));
        TRY(seconds_since(leaders, begin, &seconds));
    }
    network->latency = 1e6 * preflight_typical(times.latency, rounds, false);
    network->sends = preflight_typical(times.sends, rounds, true);
    network->receives = preflight_typical(times.receives, rounds, true);
    return 0;
}

static int measure_hosts(preflight *p, comm *leaders)
{
    void *data = leaders ? calloc(1, PAIR_BYTES) : NULL;
    int status = comm_agree(p->ranks, !leaders || data ? 0 : error_set(ERROR_MEMORY, "no memory for a transfer"));
    if (status == 0 && leaders && comm_describe(leaders)->size > 1)
        status = measure_pairs(leaders, data, &p->network);
    if (status == 0) /* after a failure MPI may still hold it */
        free(data);
    return status;
}

/* ---- clocks ---- */

static double wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The time of all ranks right after a barrier, in the quickest of a few readings: what it took bounds the error. */
static int read_clocks(preflight *p, double *all)
{
    double best = INFINITY;
    for (int i = 0; i < CLOCK_READINGS; i++) {
        double seconds;
        TRY(comm_barrier(p->ranks));
        const double begin = clock_seconds(), mine = wall_clock();
        TRY(comm_all_gather(p->ranks, &mine, sizeof mine, all));
        TRY(seconds_since(p->ranks, begin, &seconds));
        if (seconds < best)
            p->network.clock = 1e3 * (mine - all[0]);
        best = fmin(best, seconds);
    }
    return 0;
}

static int measure_clocks(preflight *p)
{
    double *all = malloc((size_t)p->info->size * sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the clocks of %d ranks", p->info->size);
    const int status = read_clocks(p, all);
    free(all);
    return status;
}

/* ---- all of it, and what it says of this host ---- */

static int measure_parts(preflight *p, comm *leaders, comm *inside)
{
    network_figures *n = &p->network;
    const sum_curve *within = &n->sums[SUMS_INSIDE_HOST];
    TRY(measure_hosts(p, leaders));
    if (!is_all(p, p->hosts == p->info->size))
        TRY(measure_part(p, leaders, "one rank of each host", SUMS_BETWEEN_HOSTS));
    if (!is_all(p, p->hosts == 1))
        TRY(measure_part(p, inside, "ranks of one host", SUMS_INSIDE_HOST));
    if (preflight_leads(p) && within->measured > 0)
        n->inside = preflight_sum_rate(within, within->measured - 1);
    return 0;
}

int preflight_measure_network(preflight *p)
{
    comm *leaders, *inside;
    p->network = (network_figures){.sends = NAN, .receives = NAN, .inside = NAN, .latency = NAN, .clock = NAN};
    if (p->info->size == 1)
        return 0;
    TRY(measure_clocks(p));
    TRY(measure_sums_of_all(p));
    TRY(comm_split(p->ranks, preflight_leads(p) ? 0 : -1, &leaders));
    TRY(comm_split(p->ranks, p->info->host_leader, &inside));
    TRY(measure_parts(p, leaders, inside));
    comm_close(leaders);
    comm_close(inside);
    return 0;
}

static int tell(finding *mine, double value, const char *unit_and_what)
{
    if (isnan(value))
        return 0;
    mine->verdict = VERDICT_FINE;
    mine->value = value;
    snprintf(mine->text, sizeof mine->text, "%.3g %s", value, unit_and_what);
    return 0;
}

int check_clock(const preflight *p, finding *mine)
{
    if (preflight_leads(p) && p->hosts > 1)
        tell(mine, p->network.clock, "ms ahead of rank 0's clock");
    return 0;
}

int check_latency(const preflight *p, finding *mine)
{
    return tell(mine, p->network.latency, "us to exchange 8 bytes with another host");
}

int check_sends(const preflight *p, finding *mine)
{
    return tell(mine, p->network.sends, "MB/s to another host");
}

int check_receives(const preflight *p, finding *mine)
{
    return tell(mine, p->network.receives, "MB/s from another host");
}

int check_inside(const preflight *p, finding *mine)
{
    return tell(mine, p->network.inside, "MB/s in a large sum inside the host");
}

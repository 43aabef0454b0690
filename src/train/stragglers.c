/* Owns the comparison of the ranks' times. One thread. */
#include "train/stragglers.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/order.h"

#include <stdlib.h>
#include <string.h>

enum { LOOKS = 3, HOST_BYTES = 64 };

/* Of the time in which ranks wait for each other although none is slow: the network then is. */
static const double much_waiting = 0.3;

/* Seconds for which a rank is slow before it is named: other programs have their moments. */
static const double a_while = 3;

typedef struct {
    char host[HOST_BYTES];
    double in[PHASES]; /* seconds since the last look */
} rank_times;

/* What a rank needed by itself, whatever the others did. */
static double own_time(const rank_times *t)
{
    return t->in[PHASE_DATA] + t->in[PHASE_COMPUTE];
}

/* The lower one of an even number: of two ranks the slower one is slow. */
static double median_of(const rank_times *all, int ranks, double (*value)(const rank_times *), double *sorted)
{
    for (int r = 0; r < ranks; r++)
        sorted[r] = value(&all[r]);
    qsort(sorted, (size_t)ranks, sizeof *sorted, order_doubles);
    return sorted[(ranks - 1) / 2];
}

static double data_time(const rank_times *t)
{
    return t->in[PHASE_DATA];
}

static void warn_of_rank(const session *e, const rank_times *all, int rank, double median, double *sorted)
{
    const double data = data_time(&all[rank]) - median_of(all, e->info->size, data_time, sorted);
    const bool by_data = 2 * data > own_time(&all[rank]) - median;
    log_warning(e->log,
                "rank %d on %s holds the others up: its steps take %.2f times as long as theirs, because of its %s",
                rank, all[rank].host, own_time(&all[rank]) / median,
                by_data ? "data (a slow disk or network there, or too few data.threads)"
                        : "computing (other programs, fewer cores, a hot or throttled device)");
}

static void judge(stragglers *s, const session *e, const rank_times *all, double *sorted)
{
    int slowest = 0;
    const double median = median_of(all, e->info->size, own_time, sorted);
    for (int r = 1; r < e->info->size; r++)
        if (own_time(&all[r]) > own_time(&all[slowest]))
            slowest = r;
    const bool slow = median > 0 && own_time(&all[slowest]) > median * (1 + e->config.dist.slow_share);
    s->looks = !slow ? 0 : slowest == s->suspect ? s->looks + 1 : 1;
    if (s->looks <= 1)
        s->slow_since = clock_seconds();
    s->suspect = slowest;
    if (s->looks < LOOKS || clock_seconds() < s->slow_since + a_while || s->said == slowest + 1)
        return;
    s->said = slowest + 1;
    if (e->info->rank == 0)
        warn_of_rank(e, all, slowest, median, sorted);
}

static void judge_network(stragglers *s, const session *e, double exposed)
{
    const bool balanced = s->looks == 0;
    if (!balanced || s->said_network || exposed < much_waiting)
        return;
    log_info(
        e->log,
        "%.0f%% of the time is spent waiting in all-reduces while no rank is slow: the network is; teskd preflight "
        "measures it, run.reduce_16bit halves what it carries, a larger train.batch asks for less of it",
        100 * exposed);
    s->said_network = true;
}

static void take_times(stragglers *s, const session *e, rank_times *mine)
{
    const phase_seconds now = comm_phase_seconds(e->ranks);
    *mine = (rank_times){0};
    snprintf(mine->host, sizeof mine->host, "%s", e->info->host);
    for (int p = 0; p < PHASES; p++)
        mine->in[p] = now.in[p] - s->before.in[p];
    s->before = now;
}

int stragglers_look(stragglers *s, const session *e, double exposed)
{
    const int ranks = e->info->size;
    rank_times mine, *all = calloc((size_t)ranks, sizeof *all);
    double *sorted = calloc((size_t)ranks, sizeof *sorted);
    take_times(s, e, &mine);
    int status = all && sorted ? comm_all_gather(e->ranks, &mine, sizeof mine, all)
                               : error_set(ERROR_MEMORY, "no memory for the times of %d ranks", ranks);
    if (status == 0 && ranks > 1) {
        judge(s, e, all, sorted);
        judge_network(s, e, exposed);
    }
    free(sorted);
    free(all);
    return status;
}

/* Owns the words for phases, and the judgement on ranks that hang. No state of its own. Threads: any. */
#include "standing.h"

#include <math.h>
#include <stdio.h>

/* What is chosen where no limit is set: many times the longest so far, and never little, since a GPU's first batch of a
 * new size or a busy file system may take a minute. */
static const double step_floor = 120, checkpoint_floor = 600, generosity = 20;

const double standing_heartbeat = 1;

rank_phase standing_phase(const rank_standing *s)
{
    return s->entered == PHASE_COMPUTE && s->waits ? PHASE_ALL_REDUCE : (rank_phase)s->entered;
}

const char *standing_phase_name(rank_phase phase)
{
    static const char *const names[] = {"none", "start", "data", "compute", "all_reduce", "checkpoint", "evaluate"};
    return (unsigned)phase < PHASES ? names[phase] : "none";
}

void standing_text(const rank_standing *s, char text[STANDING_TEXT_BYTES])
{
    const char *phase = standing_phase_name(standing_phase(s));
    text[0] = '\0';
    if (s->entered != PHASE_NONE && s->step > 0)
        snprintf(text, STANDING_TEXT_BYTES, ", in epoch %lld, step %lld (%s)", (long long)s->epoch, (long long)s->step,
                 phase);
    else if (s->entered != PHASE_NONE)
        snprintf(text, STANDING_TEXT_BYTES, ", before the first step (%s)", phase);
}

static bool is_long_phase(const rank_standing *s)
{
    return s->entered == PHASE_CHECKPOINT || s->entered == PHASE_EVALUATE;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

void hang_watch_note(hang_watch *w, watched_rank *rank, const rank_standing *standing, double now)
{
    const double took = now - rank->since;
    if (rank->standing.looks != standing->looks || !standing->waits)
        rank->looked = now;
    rank->standing.looks = standing->looks;
    if (rank->standing.changes == standing->changes)
        return;
    if (w->stepping && is_long_phase(&rank->standing))
        w->longest_checkpoint = larger(w->longest_checkpoint, took);
    else if (w->stepping)
        w->longest_step = larger(w->longest_step, took);
    w->stepping = w->stepping || (rank->standing.step > 0 && standing->step != rank->standing.step);
    rank->standing = *standing;
    rank->since = now;
}

static double limit_of(const hang_watch *w, const rank_standing *s, const char **setting)
{
    const bool is_long = is_long_phase(s);
    const double set = is_long ? w->limits.checkpoint : w->limits.step;
    if (!w->stepping && !is_long) {
        *setting = "dist.timeout_start";
        return w->limits.start;
    }
    *setting = is_long ? "dist.timeout_checkpoint" : "dist.timeout_step";
    if (set > 0)
        return set;
    return is_long ? larger(checkpoint_floor, generosity * w->longest_checkpoint)
                   : larger(step_floor, generosity * w->longest_step);
}

/* Whether `a` is to blame rather than `b`: not waiting, not looking, further behind, for longer. */
static bool is_worse(const watched_rank *a, const watched_rank *b)
{
    if (a->standing.waits != b->standing.waits)
        return !a->standing.waits;
    if (fabs(a->looked - b->looked) > 1.25 * standing_heartbeat)
        return a->looked < b->looked;
    if (a->standing.step != b->standing.step)
        return a->standing.step < b->standing.step;
    return a->since < b->since;
}

int hang_watch_find(const hang_watch *w, const watched_rank *ranks, int size, double now, double *limit,
                    const char **setting)
{
    int worst = -1;
    for (int r = 0; r < size; r++)
        if (ranks[r].standing.entered != PHASE_NONE && (worst < 0 || is_worse(&ranks[r], &ranks[worst])))
            worst = r;
    if (w->limits.start <= 0 || worst < 0)
        return -1;
    *limit = limit_of(w, &ranks[worst].standing, setting);
    return now - ranks[worst].since > *limit ? worst : -1;
}

/* Owns how this rank stands: what it does, since when, and how long it has done what. Threads: main thread only. */
#include "comm_internal.h"

#include "base/clock.h"

#include <math.h>

/* Closes the account of the phase so far, and tells of the new one. */
static void stand(comm *c, rank_standing standing)
{
    const double now = clock_seconds();
    c->spent.in[standing_phase(&c->standing)] += now - c->standing_since;
    c->standing_since = now;
    standing.changes++;
    c->standing = standing;
    if (c->ops->stand)
        c->ops->stand(c);
    if (c->entered)
        c->entered(c->entered_context, &c->standing);
}

void comm_enter(comm *c, rank_phase phase)
{
    rank_standing standing = c->standing;
    standing.entered = (int32_t)phase;
    stand(c, standing);
}

void comm_set_step(comm *c, int64_t epoch, int64_t step)
{
    c->standing.epoch = epoch;
    c->standing.step = step;
}

/* A wait that nobody watches, as those of a rank without others, is not worth telling of. */
static void set_waits(comm *c, bool waits)
{
    rank_standing standing = c->standing;
    standing.waits = waits;
    if (standing.entered != PHASE_NONE && c->info.size > 1)
        stand(c, standing);
}

void comm_begin_wait(comm *c)
{
    set_waits(c, true);
}

void comm_end_wait(comm *c)
{
    set_waits(c, false);
}

void comm_watch(comm *c, const phase_limits *limits, double silence_seconds)
{
    const double longest = fmax(limits->start, fmax(limits->step, limits->checkpoint));
    c->limits.patience_seconds = fmax(c->limits.patience_seconds, longest);
    if (c->ops->watch)
        c->ops->watch(c, limits, silence_seconds);
}

phase_seconds comm_phase_seconds(const comm *c)
{
    phase_seconds spent = c->spent;
    spent.in[standing_phase(&c->standing)] += clock_seconds() - c->standing_since;
    return spent;
}

void comm_observe(comm *c, void (*entered)(void *context, const rank_standing *now), void *context)
{
    c->entered = entered;
    c->entered_context = context;
}

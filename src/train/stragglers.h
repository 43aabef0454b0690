/* Who holds the others up: each rank's own time in steps, beside that of the others. */
#ifndef TESKD_TRAIN_STRAGGLERS_H
#define TESKD_TRAIN_STRAGGLERS_H

#include "session/session.h"

typedef struct {
    phase_seconds before; /* of this rank, at the last look */
    int suspect, looks;   /* a rank that was slow in the last looks, and in how many */
    double slow_since;    /* when the first of them was */
    int said;             /* the rank that was named last, plus one */
    bool said_network;
} stragglers;

/* Compares the ranks since the last look; every rank calls it. A rank that has been slower than the median by
 * dist.slow_share in several looks is named in a warning, once, with what takes it so long. `exposed` is the share of
 * the time in which the ranks waited for sums, their mean: where no rank is slow, the network is. */
int stragglers_look(stragglers *s, const session *e, double exposed);

#endif

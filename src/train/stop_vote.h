/* The ranks' vote on whether a signal asks for an end, or something that a rank does in the background has failed, so
 * that all of them stop at the same place. */
#ifndef TESKD_TRAIN_STOP_VOTE_H
#define TESKD_TRAIN_STOP_VOTE_H

#include "dist/comm.h"

/* Begins with `ranks` set and all else zero; must not move while a vote is under way. */
typedef struct {
    comm *ranks;
    bool stops, fails; /* as of the last vote that was counted, the same on every rank */
    comm_request request;
    int64_t votes[2]; /* of signals, of failures */
    bool under_way;
} stop_vote;

/* Counts the vote that is under way and starts the next one, in which this rank says whether it `failed`. To wait for a
 * vote at once would let no rank's host run ahead of the others'. Every rank calls it. */
int stop_vote_start(stop_vote *v, bool failed);

/* Counts the vote that is under way, if one is: to be called before the communicator goes. Every rank calls it. */
int stop_vote_count(stop_vote *v);

#endif

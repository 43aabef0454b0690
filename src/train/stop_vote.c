/* Owns the vote on an end. Invariant: at most one is under way, and all ranks have counted the same ones. One thread.
 */
#include "train/stop_vote.h"
#include "base/error.h"
#include "train/signals.h"

int stop_vote_count(stop_vote *v)
{
    if (!v->under_way)
        return 0;
    v->under_way = false;
    TRY(comm_wait(v->ranks, &v->request));
    v->stops = v->votes[0] > 0;
    v->fails = v->votes[1] > 0;
    return 0;
}

int stop_vote_start(stop_vote *v, bool failed)
{
    TRY(stop_vote_count(v));
    v->votes[0] = signals_received() != 0;
    v->votes[1] = failed;
    v->under_way = true;
    return comm_all_reduce_start(v->ranks, v->votes, 2, COMM_I64, &v->request);
}

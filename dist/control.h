/* The control channel: how a rank learns at once that another one has failed.
 *
 * A star of TCP connections around rank 0, watched by one thread in each rank. A connection that closes without a
 * goodbye, or stays silent for limits.silence_seconds, is a rank that died. With its heartbeats each rank tells how its
 * main thread stands (standing.h): failures are told with phase and step, and rank 0 notices a rank that hangs. Rank 0
 * passes every failure on. The first failure heard of is kept for good; later ones are taken for its consequences. */
#ifndef TESKD_DIST_CONTROL_H
#define TESKD_DIST_CONTROL_H

#include "comm.h"
#include "rendezvous.h"
#include "standing.h"

#include <stdbool.h>

typedef struct control control;

/* Starts the watchdog over the sockets that rendezvous gave: on rank 0 fd[0..size-1] with fd[0] = -1, on the others
 * fd[0] alone. `place` has `size` entries and outlives the channel. Owns the sockets from then on, on failure too.
 * `limits` says when the watchdog gives the main thread up: too long after a failure became known without
 * control_leave. */
int control_open(control **out, int rank, int size, const rank_place *place, const int *fd, const comm_limits *limits);

/* How this rank's main thread stands from now on; the peers hear of it within a tick. Cheap: a lock and a copy. */
void control_stand(control *ctl, const rank_standing *standing);

/* From now on rank 0 counts a rank as failed whose standing does not change for longer than these limits allow, and
 * every rank one that is silent for so long. */
void control_watch(control *ctl, const phase_limits *phases, double silence_seconds);

/* 0 while no peer is known to have failed, else ERROR_COMM with the failure's message. Cheap: two atomics.
 * A main thread that waits calls it again and again, by which its peers know that it lives. */
int control_check(control *ctl);
bool control_peer_failed(const control *ctl);

/* With what the failed peer ends (base/error.h); ERROR_COMM for one that died or hangs; 0 while none has failed. */
int control_peer_code(const control *ctl);

/* Waits up to `ms` milliseconds for word of a failure, and returns as control_check. */
int control_await_failure(control *ctl, int ms);

/* Ends the watchdog. With code 0 it says goodbye. With a negative one the peers are told that this rank fails with it
 * (the text goes out as it is); it returns when they have heard, after one second at the latest. control_check goes on
 * working. */
void control_leave(control *ctl, int code, const char *failure);

/* Leaves, if that has not been done, and frees. NULL is fine. */
void control_close(control *ctl);

#endif

/* Ranks: one process each, all with the same program.
 *
 * Collectives are called by every rank in the same order, from the main thread, on host memory. No call hangs because a
 * peer died: the control channel notices, the call returns ERROR_COMM and the message names the rank and its host.
 *
 * One failure, one message on stderr, and no rank left over. A main program that fails does this:
 *
 *     if (!comm_peer_failed(c)) {
 *         comm_sign_error(c, code);
 *         print error_message();
 *     }
 *     comm_abort(c, code);
 *     _exit(non-zero);
 *
 * _exit, because MPI is not finalized then, and the launcher ends the job on the non-zero code. The message of a rank
 * that died without a word is written by the communicator itself, at once and from its own thread, on exactly one
 * surviving rank ("PROGRAM: rank R on HOST ended without a word ..."). mpirun kills the survivors about a second after
 * such a death, and a main thread may be longer than that in a computation. mpirun sends SIGTERM before: have a
 * handler.
 */
#ifndef TESKD_DIST_COMM_H
#define TESKD_DIST_COMM_H

#include "dist/standing.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct comm comm;

typedef enum { COMM_F32, COMM_F64, COMM_I64, COMM_F16, COMM_BF16 } comm_dtype;

static inline size_t comm_dtype_bytes(comm_dtype type)
{
    return type == COMM_F16 || type == COMM_BF16 ? 2 : type == COMM_F32 ? 4 : 8;
}

typedef struct {
    int rank, size;             /* of all ranks */
    int local_rank, local_size; /* of those on this host */
    int host_leader;            /* the lowest rank on this host, which tells hosts apart: two may have one name */
    const char *host;
    const char *library; /* "single process" or the MPI library's version line */
} comm_info;

/* A started all_reduce; caller memory, zero-initialised, opaque. */
typedef struct {
    uintptr_t handle[4];
} comm_request;

enum { COMM_PATIENCE_SECONDS = 600, COMM_GRACE_SECONDS = 10, COMM_SILENCE_SECONDS = 60 };

/* What bounds the waits that no peer's death ends. */
typedef struct {
    /* How long a wait for other ranks may take while all of them are alive. One may be away for a while: it writes a
     * checkpoint, or chooses convolutions for a last batch. */
    double patience_seconds;

    /* How long after a peer's failure the main thread may take to come to comm_abort. */
    double grace_seconds;

    /* How long a peer's watchdog may be silent before the peer counts as dead: a stopped or swapped one is not. More
     * than a few heartbeats of 1 s. */
    double silence_seconds;

    /* The last resort, called from a thread of the communicator's when the main thread is past these limits. It is then
     * in something that cannot be watched: a launch into a full queue of the GPU, the release of its memory, MPI's
     * opening and end. Has to end the process, with the message on stderr where it is not NULL (a peer has told
     * otherwise). A function of the main program's, since a library does not end processes; NULL: nobody does. */
    void (*end_process)(const char *message);
} comm_limits;

/* Opens MPI when a launcher (mpirun, srun --mpi=pmix) started this process, else a communicator of one rank that needs
 * no MPI daemon. Only once in a process. When opening fails for any rank, it fails for all, and
 * error_message() is empty where another rank has the message; end the process without MPI then. `limits` NULL: the
 * numbers above, and no last resort. */
int comm_open(comm **out, const comm_limits *limits);

/* The rank that the launcher's environment gives this process, for what has to be said before MPI is open; 0 without
 * one. */
int comm_expected_rank(void);

/* ERROR_USAGE, with how to launch, where this is the only rank though a launcher started several processes: each would
 * do the whole work, and write over the others' files. */
int comm_refuse_single(const comm *c);

/* A communicator of one rank, always. */
int comm_open_self(comm **out);

const comm_info *comm_describe(const comm *c);

/* What this rank does from now on, and in which epoch and step, from 1. Its peers name a rank that dies or hangs with
 * both. Called with every sign of progress, also where nothing changes: a batch of an evaluation, a file that is
 * staged. */
void comm_enter(comm *c, rank_phase phase);
void comm_set_step(comm *c, int64_t epoch, int64_t step);

/* From now on a rank fails that shows no progress for longer than these limits, or is silent for silence_seconds; waits
 * last at least as long as the longest of them. Every rank calls it with the same. */
void comm_watch(comm *c, const phase_limits *limits, double silence_seconds);

/* Seconds that this rank has spent in each phase so far. */
typedef struct {
    double in[PHASES];
} phase_seconds;
phase_seconds comm_phase_seconds(const comm *c);

/* Calls `entered` on the main thread whenever this rank comes to stand otherwise; NULL: nobody. */
void comm_observe(comm *c, void (*entered)(void *context, const rank_standing *now), void *context);

/* patience_seconds, and a little more the higher the rank. Of ranks that wait for the same thing one then gives up
 * first, alone, and its peers hear of it. */
double comm_patience(const comm *c);

/* All-reduce (a sum), in place, added in rank order: the same bits on every rank and in every run with as many ranks.
 * Where every host has the same number of ranks, more than one, those of a host are added first, then the hosts' sums
 * in the order of their lowest ranks. Numbers of 16 bits are added in float32 and rounded once, and once per host then.
 */
int comm_all_reduce(comm *c, void *data, size_t count, comm_dtype type);

/* The same, not waiting: `data` must not be touched until comm_wait. Every started request is waited for, in any order,
 * before comm_close. */
int comm_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request);
int comm_wait(comm *c, comm_request *request);

/* Lets started requests advance; cheap, for between two pieces of computation. */
int comm_progress(comm *c);

int comm_broadcast(comm *c, void *data, size_t bytes, int root);
int comm_barrier(comm *c);

/* Every rank's `bytes` of data, in rank order, into `all` (size * bytes). */
int comm_all_gather(comm *c, const void *data, size_t bytes, void *all);

/* Ranks of the same `group` get a communicator among themselves, in order of rank; a negative group gets none, `*out`
 * is NULL then. Every rank of `c` calls it, which has to stay open. In the description of a part, rank and size are the
 * part's. Collectives alone are for parts; errors are told to `c`. After a failure it is not closed. */
int comm_split(comm *c, int group, comm **out);

/* Agrees on the outcome of something that each rank did alone (a file opened, a setting checked). Returns 0 where all
 * passed status 0; otherwise every rank gets the lowest failing rank's code and message ("rank R on HOST: ...").
 * The communicator stays usable. Agreements nest: a failure that was agreed on keeps its text in an outer one. */
int comm_agree(comm *c, int status);

/* After a failure: true when it came from a peer, which reports it (or could not any more, see above), so that this
 * rank keeps quiet. Goes by the failed call's error_message(): ask before another error replaces it. */
bool comm_peer_failed(const comm *c);

/* With what the first peer that failed ends (the code of its comm_abort or comm_leave_early), so that this rank ends
 * with the same; ERROR_COMM where it died or hangs; 0 where none has failed. */
int comm_peer_code(const comm *c);

/* Makes error_message(), or else the text of `code`, begin with "rank R on HOST: ", where there are several ranks and
 * it does not name the failing one yet. */
void comm_sign_error(const comm *c, int code);

/* Tells the peers that this rank fails, with error_message() or else the text of `code`, so that they return ERROR_COMM
 * at once. Returns within about two seconds, or where a failure was agreed on when the rank that it came from has
 * spoken. MPI is left as it is: only _exit may follow. Comes before whatever may take long or for ever, such as closing
 * a GPU: until then the peers wait. */
void comm_abort(comm *c, int code);

/* The end of a rank that has had no part in anything yet, from another thread than the main one, which may be anywhere:
 * tells the peers as comm_abort does. Returns whether this rank has to speak: no peer did before, the lowest rank
 * first where all are ended at once. Only _exit may follow. */
bool comm_leave_early(comm *c, int code);

/* Notes that a thread is left which cannot be ended, and asks for that note. Exit handlers would take away what it
 * works on: the process must end by _exit then. */
void comm_leave_thread(comm *c);
bool comm_has_left_thread(const comm *c);

/* Orderly end: all ranks call it. Frees c. NULL is fine. */
void comm_close(comm *c);

#endif

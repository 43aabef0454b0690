/* What a rank is doing, as its peers and their messages know it, and which of several ranks hangs.
 *
 * Training runs in step over the ranks, so one that hangs soon makes all others wait for it. The one to name is then a
 * rank that does not wait for others; or one that does, but no longer looks; or else the one that is furthest behind.
 */
#ifndef TESKD_DIST_STANDING_H
#define TESKD_DIST_STANDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    PHASE_NONE,       /* nothing that is watched */
    PHASE_START,      /* opens the device, data and programs */
    PHASE_DATA,       /* waits for images */
    PHASE_COMPUTE,    /* forward, backward, update */
    PHASE_ALL_REDUCE, /* is to compute, and waits for other ranks */
    PHASE_CHECKPOINT,
    PHASE_EVALUATE,
    PHASES
} rank_phase;

typedef struct {
    int32_t entered;     /* rank_phase, never PHASE_ALL_REDUCE */
    int32_t waits;       /* for other ranks */
    int64_t epoch, step; /* from 1; 0 before the first step */
    uint64_t changes;    /* grows with each sign of progress */
    uint64_t looks;      /* grows while the rank waits, as long as its main thread lives */
} rank_standing;

rank_phase standing_phase(const rank_standing *s);

/* "data", "all_reduce", ... */
const char *standing_phase_name(rank_phase phase);

/* ", in epoch 3, step 17 (all_reduce)", or nothing where nothing is watched. */
enum { STANDING_TEXT_BYTES = 96 };
void standing_text(const rank_standing *s, char text[STANDING_TEXT_BYTES]);

/* Seconds for which a rank may show no progress. 0 for step and checkpoint: chosen from the longest that one has taken
 * so far on any rank, and generously. */
typedef struct {
    double start, step, checkpoint; /* until the first step; data, compute, all_reduce; checkpoint, evaluate */
} phase_limits;

/* One rank as a watcher sees it. */
typedef struct {
    rank_standing standing;
    double since;  /* seconds of clock_seconds(): when it came to stand so */
    double looked; /* when `looks` last was seen to have grown */
} watched_rank;

typedef struct {
    phase_limits limits; /* all 0: nobody is watched */
    double longest_step, longest_checkpoint;
    bool stepping; /* some rank has finished its first step */
} hang_watch;

/* How often at least a rank tells how it stands, in seconds. */
extern const double standing_heartbeat;

/* Takes in how a rank stands at `now`. */
void hang_watch_note(hang_watch *w, watched_rank *rank, const rank_standing *standing, double now);

/* The rank that all wait for, where it has shown no progress for longer than its phase's limit, or -1; `setting` has
 * the name of that limit. */
int hang_watch_find(const hang_watch *w, const watched_rank *ranks, int size, double now, double *limit,
                    const char **setting);

#endif

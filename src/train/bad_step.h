/* Steps whose numbers are no longer finite: which was the first, which node of it, and how to do it again. */
#ifndef TESKD_TRAIN_BAD_STEP_H
#define TESKD_TRAIN_BAD_STEP_H

#include "session/feed.h"
#include "train/checkpoint.h"

/* The step that was just done: at->step counts it. */
typedef struct {
    session *e;
    feed *batches;
    const progress *at;
    double lr;
} done_step;

/* The newest checkpoint that a resume can take. An empty path: there is none yet. */
typedef struct {
    char path[SETTING_TEXT_BYTES + 16];
    int64_t epoch, step;
} resume_point;

/* With run.check_finite, after each step: ERROR_DATA where it was bad. The step is then run again node by node; the
 * message names the node whose result was the first that is not finite, on any rank. Such a step has changed no weight.
 * Every rank calls it; all get the same outcome. */
int bad_step_search(const done_step *s);

/* At a line of the log whose joint loss is not finite: ERROR_DATA, with the first bad step since the line before. Sets
 * how many steps were done with it. Every rank calls it; all get the same outcome. */
int bad_step_since_line(const done_step *s, int64_t *steps_done);

/* ERROR_DATA where so many steps in a row were skipped that the loss scale cannot help. The same on all ranks. */
int bad_step_check_scale(const done_step *s, const loss_scaling *scaling);

/* After one of the failures above: how to do step number `steps_done` again. Returns `status`. */
int bad_step_say_again(int status, const session *e, const resume_point *from, int64_t steps_done);

#endif

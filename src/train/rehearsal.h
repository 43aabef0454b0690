/* Faults on purpose (run.rehearse_fault): how a cluster, a batch script and this program take them can be tried before
 * a week's run. */
#ifndef TESKD_TRAIN_REHEARSAL_H
#define TESKD_TRAIN_REHEARSAL_H

#include "session/session.h"

typedef struct {
    session *e;
    int64_t steps;  /* of an epoch */
    bool done;      /* faults but `slow` happen once */
    double entered; /* when the phase last began, for `slow` */
    double slept;
} rehearsal;

/* From now on the fault happens on its rank, in its phase and step. `r` must live as long as the ranks; `steps` is how
 * many an epoch has. Without a fault in the settings nothing is done. */
void rehearsal_start(rehearsal *r, session *e, int64_t steps);

#endif

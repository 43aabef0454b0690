/* What all ranks have to have alike before they begin. Every rank calls these; all get the same outcome, which names
 * the rank and host that differ, what differs, and both values. */
#ifndef TESKD_SESSION_AGREEMENT_H
#define TESKD_SESSION_AGREEMENT_H

#include "base/settings.h"
#include "dist/comm.h"
#include "io/data/source.h"

/* The build of the program. To be compared first: what another build sends may have another shape. */
int agree_on_program(comm *ranks);

/* Settings but paths and run.threads. */
int agree_on_settings(comm *ranks, const settings *config);

/* A text of at most 1023 bytes; `what` names it in the message. */
int agree_on_text(comm *ranks, const char *what, const char *text);

/* Sizes, labels and pixels of the data sets that are open. */
int agree_on_data(comm *ranks, const image_set *train_set, const image_set *test_set);

#endif

/* What all ranks have to have alike before they begin. Every rank calls these; all get the same outcome, which names
 * the rank and host that differ, what differs, and both values. */
#ifndef TESKD_TRAIN_AGREEMENT_H
#define TESKD_TRAIN_AGREEMENT_H

#include "dist/comm.h"
#include "io/data/source.h"
#include "train/options.h"

/* Settings but paths and run.threads, and the options that go with them. */
int agree_on_options(comm *ranks, const options *o);

/* Sizes, labels and pixels of the data sets that are open. */
int agree_on_data(comm *ranks, const image_set *train_set, const image_set *test_set);

#endif

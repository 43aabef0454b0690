/* The test pictures through the network, each exactly once over all ranks. */
#ifndef TESKD_TRAIN_EVALUATE_H
#define TESKD_TRAIN_EVALUATE_H

#include "train/experiment.h"
#include "train/metrics.h"

/* Fills means over the whole test set, the same on every rank. The loader is the one of the test set. */
int evaluate(experiment *e, loader *batches, metrics *mean);

#endif

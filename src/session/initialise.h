/* Fresh parameters. */
#ifndef TESKD_SESSION_INITIALISE_H
#define TESKD_SESSION_INITIALISE_H

#include "model/network.h"
#include "run/store.h"

/* Fills every parameter as the model says, running means with 0, running variances with 1, momentum with 0, each EMA
 * with what it follows. A pure function of the seed and the tensors' names: the same on every rank and for every batch.
 * `g` is the graph that the model was built into. */
int initialise_store(store *tensors, const graph *g, const model *m, uint64_t seed);

#endif

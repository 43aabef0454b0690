/* What a run would do: tables of the network, the memory and the work. */
#ifndef TESKD_TRAIN_DESCRIBE_H
#define TESKD_TRAIN_DESCRIBE_H

#include "train/session.h"

/* Prints layers with shapes, weights and multiply-adds a picture; the memory plan per arena; steps an epoch, ranks and
 * threads. The training programs must be built. */
int describe_run(session *e);

/* Writes the graph of a full training step for Graphviz. */
int describe_graph(const session *e, const char *path);

#endif

/* What a run would do: tables of the network, the memory and the work. */
#ifndef TESKD_TOOLS_DRY_RUN_H
#define TESKD_TOOLS_DRY_RUN_H

#include "session/session.h"

/* Prints layers with shapes, weights and multiply-adds per image; the memory plan per arena; steps per epoch, ranks and
 * threads. The training programs must be built. */
int dry_run(session *e);

/* Writes the graph of a full training step for Graphviz. */
int dry_run_dump_graph(const session *e, const char *path);

#endif

/* Adds up what ranks sent: float32, float64 and int64 as they are (int64 wraps), 16 bits in float32 and rounded once.
 *
 * Nothing here knows of MPI; any thread. */
#ifndef TESKD_DIST_ADD_H
#define TESKD_DIST_ADD_H

#include "comm.h"

/* `sum` = part[0] + part[1] + ... + part[parts - 1], in that order, each of `count` elements. `sum` may be part[0]; it
 * overlaps no other one. */
void add_in_order(void *sum, const void *const *part, int parts, size_t count, comm_dtype type);

#endif

/* From settings to how gradients are reduced. */
#ifndef TESKD_SESSION_REDUCTION_H
#define TESKD_SESSION_REDUCTION_H

#include "base/log.h"
#include "base/settings.h"
#include "dist/reduction.h"
#include "kernels/backend.h"

/* As run.reduction says. `*out` is NULL where there is one rank and nothing to sum. Every rank calls it; `log` warns
 * when GPUs are shared and sums take the long way. */
int reduction_open(reduction **out, const settings *config, backend *device, comm *ranks, logger *log);

#endif

/* Reductions by way of dist/comm.h: for devices whose memory is the host's, and for others through a copy. */
#ifndef TESKD_RUN_HOST_REDUCTION_H
#define TESKD_RUN_HOST_REDUCTION_H

#include "dist/reduction.h"
#include "kernels/backend.h"

/* Both must outlive the reduction. */
int host_reduction_open(reduction **out, comm *ranks, backend *device);

#endif

/* From settings to a backend. */
#ifndef TESKD_SESSION_DEVICE_H
#define TESKD_SESSION_DEVICE_H

#include "base/log.h"
#include "base/settings.h"
#include "dist/comm.h"
#include "kernels/backend.h"

/* Opens the device that run.device names; close it with its ops. With `auto` every rank takes a GPU or none does, and
 * `log` hears why not where GPUs are there. Every rank calls it; ERROR_SETTINGS when the device has not run.precision.
 */
int device_open(backend **out, const settings *config, comm *ranks, int threads, logger *log);

#endif

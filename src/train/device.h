/* From settings to a backend. */
#ifndef TESKD_TRAIN_DEVICE_H
#define TESKD_TRAIN_DEVICE_H

#include "base/settings.h"
#include "dist/comm.h"
#include "kernels/backend.h"

/* Cores this process may run on. */
int device_cores(void);

/* run.threads, or this rank's share of the cores it may run on: launchers may have bound each rank to cores of its
 * own, or several ranks to the same ones. Every rank calls it. */
int device_threads(const settings *config, comm *ranks, int *threads);

/* Opens the device that run.device names; close it with its ops. */
int device_open(backend **out, const settings *config, int threads);

#endif

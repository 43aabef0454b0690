/* How many threads a rank computes with, and how they wait for each other. */
#ifndef TESKD_SESSION_THREADS_H
#define TESKD_SESSION_THREADS_H

#include "base/settings.h"
#include "dist/comm.h"
#include "kernels/backend.h"

#include <stdbool.h>
#include <stddef.h>

/* Lets idle threads sleep soon, so that they take no core from others. OpenMP's library reads that setting when it is
 * loaded: so the program is started once more, with the same process and arguments. Returns where
 * there is nothing to set (the user has said how threads wait or where they run, or there is one core) or it cannot be
 * done. The first thing a process does. */
void threads_wait_briefly(char **argv);

/* run.threads, or OMP_NUM_THREADS, or this rank's share of the cores it may use, one thread per core. Launchers may
 * have bound each rank to cores of its own, or several to the same ones, and ranks may share a CPU quota. At most
 * OMP_THREAD_LIMIT. Every rank calls it. */
int threads_choose(const settings *config, comm *ranks, int *threads);

/* Keeps this thread, and those it starts from now on, on the cores near the device, where the system tells them:
 * launches and pinned memory then do not cross the machine. false: this rank may use none of those. */
bool threads_move_near(backend *device);

/* Threads of each loader: data.threads or, where the device is not the cores themselves, this rank's share of the
 * hardware threads less one for the thread that launches; else 1, since more would take the cores from the computing.
 * Every rank calls it, after threads_move_near. */
int threads_for_loader(const settings *config, const backend *device, comm *ranks, int *threads);

/* This rank's part of the cores and of the hardware threads that it and other ranks may use; at least 1. Every rank
 * calls it. */
int threads_shares(comm *ranks, int *cores, int *threads);

/* Hardware threads that this process may keep busy, and the cores they are on: the affinity mask's, at most what a CPU
 * quota grants. */
void threads_usable(int *threads, int *cores);

/* For the log: the cores this process may use and what limits them; the variables of OpenMP that are set. */
enum { THREADS_TEXT_BYTES = 768 };
void threads_cores_text(char text[THREADS_TEXT_BYTES]);
void threads_openmp_text(char text[THREADS_TEXT_BYTES]);

#endif

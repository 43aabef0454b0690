/* How many threads a rank computes with, and how they wait for each other. */
#ifndef TESKD_SESSION_THREADS_H
#define TESKD_SESSION_THREADS_H

#include "base/settings.h"
#include "dist/comm.h"

#include <stdbool.h>
#include <stddef.h>

/* Lets idle threads sleep soon, so that they take no core from others. OpenMP's library reads that setting when it is
 * loaded: so the program is started once more, with the same process and arguments. Returns where
 * there is nothing to set (the user has said how threads wait or where they run, or there is one core) or it cannot be
 * done. The first thing a process does. */
void threads_wait_briefly(char **argv);

/* run.threads, or OMP_NUM_THREADS, or this rank's share of the cores it may use. Launchers may have bound each rank to
 * cores of its own, or several to the same ones, and ranks may share a CPU quota. At most OMP_THREAD_LIMIT. Every
 * rank calls it. */
int threads_choose(const settings *config, comm *ranks, int *threads);

/* Threads of each loader: data.threads or, where the device is not the cores themselves, this rank's share of the cores
 * less one for the thread that launches; else 1, since more would take the cores from the computing. */
int threads_for_loader(const settings *config, bool computes_on_cores, int share);

/* For the log: the cores this process may use and what limits them; the variables of OpenMP that are set. */
enum { THREADS_TEXT_BYTES = 768 };
void threads_cores_text(char text[THREADS_TEXT_BYTES]);
void threads_openmp_text(char text[THREADS_TEXT_BYTES]);

#endif

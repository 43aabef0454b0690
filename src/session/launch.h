/* What the launch gave each rank to work with, and what is wrong with it though the run can go on. */
#ifndef TESKD_SESSION_LAUNCH_H
#define TESKD_SESSION_LAUNCH_H

#include "session/session.h"

enum { LAUNCH_TEXT_BYTES = 1024 };

/* Of one rank. */
typedef struct {
    bool computes_on_cores; /* the device is the cores themselves */
    bool decodes;           /* the loader has images to decode */
    int threads, loader_threads;
    int cores, hardware_threads; /* this rank's share, within the affinity mask and the CPU quota */
} launch_means;

/* Every rank calls it: they find out which of them share cores. */
int launch_find(const session *e, launch_means *means);

/* Fewer cores than threads, or too few for the loader. Returns whether there is a problem; `text` is empty without. */
bool launch_starves(const launch_means *means, char text[LAUNCH_TEXT_BYTES]);

/* Warns of that, and of GPUs that are not alike. Of the ranks with a problem the lowest speaks, and says how many more
 * have it. Every rank calls it, with the session open. */
int launch_warn(const session *e);

#endif

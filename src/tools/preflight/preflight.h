/* Checks the hosts of a run before it starts: are they alike, whole and fast enough. */
#ifndef TESKD_TOOLS_PREFLIGHT_H
#define TESKD_TOOLS_PREFLIGHT_H

#include "base/log.h"
#include "base/settings.h"
#include "dist/comm.h"

#include <stdbool.h>

enum { PREFLIGHT_PATIENCE_SECONDS = 60 };

typedef struct {
    bool json;       /* one line of JSON in place of the table */
    double patience; /* seconds that a host may take for a check of its own; then it counts as stalled */
} preflight_options;

/* Every rank calls it, with the settings of the training that is to come. Prints one table; nothing is left behind.
 * ERROR_MISMATCH, agreed on, where a host has a fault: the message names the lowest such rank, its host and the fault.
 * Another error where the check itself cannot be done. */
int preflight_run(const settings *config, const preflight_options *options, logger *log, comm *ranks);

#endif

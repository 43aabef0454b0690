/* Holds this program against a file of reference results. */
#ifndef TESKD_TOOLS_REFERENCE_H
#define TESKD_TOOLS_REFERENCE_H

#include "graph/rewrite.h"
#include "kernels/backend.h"

#include <stdio.h>

typedef struct {
    unsigned rewrites; /* graph/rewrite.h */
    bool capture;      /* capture the step and replay it, where the device can */
} compare_options;

/* Builds the file's network, generates its weights and input, runs its steps and prints one line per quantity with
 * its relative L2 error and bound. Returns 0, ERROR_MISMATCH when a line is out of bounds, or another failure. */
int compare_with_reference(backend *device, const char *path, const compare_options *options, FILE *out);

#endif

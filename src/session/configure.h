/* From settings to what a step is made of. No device is needed: export, comparisons and sessions use it. */
#ifndef TESKD_SESSION_CONFIGURE_H
#define TESKD_SESSION_CONFIGURE_H

#include "base/settings.h"
#include "io/data/source.h"
#include "kernels/backend.h"
#include "model/step.h"

/* Finds the source of the data and fills a cleared `step`, in float32. ERROR_SETTINGS, naming the setting, for what the
 * settings alone make impossible. */
int configure(const settings *config, const data_source **source, step_options *step);

/* Adds what the device decides: precision, the last passes, and channels that it wants the first layer to read. */
void configure_for_device(step_options *step, const backend_ops *device);

/* The set of rewrites that the settings want (graph/rewrite.h). */
unsigned configure_rewrites(const settings *config);

#endif

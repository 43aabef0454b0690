/* What errors a device may show against reference results. Private to this comparison. */
#ifndef TESKD_TOOLS_REFERENCE_BOUNDS_H
#define TESKD_TOOLS_REFERENCE_BOUNDS_H

#include "io/file/reference_file.h"
#include "kernels/backend.h"

/* The relative L2 error allowed of element `index` of the `count` results of `dataset` (logits, features, losses,
 * gradients, after, running, eval_logits). */
int compare_bound(const reference_file *file, const backend *device, const char *dataset, int count, int index,
                  double *bound);

#endif

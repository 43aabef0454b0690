/* From settings to what a step is made of. No device is needed: export, comparisons and sessions use it. */
#ifndef TESKD_SESSION_CONFIGURE_H
#define TESKD_SESSION_CONFIGURE_H

#include "base/settings.h"
#include "io/data/image_sizes.h"
#include "io/data/source.h"
#include "kernels/backend.h"
#include "model/step.h"
#include "run/program.h"

/* Where the images come from and how large the network sees them. */
typedef struct {
    const data_source *source;
    image_sizes sizes;   /* of training images, by epoch */
    int32_t eval_size;   /* height and width of the images of an evaluation */
    int32_t resize_size; /* their shorter side before the centre is taken, where images vary in size */
} image_options;

/* Fills `images` and a cleared `step`, in float32 and for the last size of training images. Looks at data.path for the
 * number of classes where neither the settings nor the kind of data say it. ERROR_SETTINGS, naming the setting, for
 * what the settings alone make impossible. */
int configure(const settings *config, image_options *images, step_options *step);

/* Adds what the device decides: precision, the last passes, and channels that it wants the first layer to read. */
void configure_for_device(step_options *step, const backend_ops *device);

/* The set of rewrites that the settings want (graph/rewrite.h). */
unsigned configure_rewrites(const settings *config);

/* How the gradients are cut for the reduction. */
bucket_sizes configure_buckets(const settings *config);

#endif

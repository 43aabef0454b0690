/* The step that is planned: from the settings' own graph, or from a list of layers. */
#ifndef TESKD_TOOLS_PLAN_STEP_H
#define TESKD_TOOLS_PLAN_STEP_H

#include "base/settings.h"
#include "run/program.h"
#include "tools/plan/model.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    char network[SETTING_TEXT_BYTES + 16]; /* its name, or that of the list */
    plan_timeline timeline;                /* its seconds are those of an H100 at best; 0: not known */
    double gradient_bytes;                 /* of all buckets, as they travel */
    double fixed_bytes;                    /* of a GPU's memory, whatever the batch; 0: not known */
    double image_bytes;                    /* and for each image of a micro-batch */
    int64_t train_images;                  /* of an epoch */
    bool decoded;                          /* images are JPEG or PNG files, and vary in size */
    double image_pixel_bytes;              /* of one that is not: as it is stored */
    int32_t micro_batch;                   /* images that a GPU computes at once */
} plan_step;

typedef struct {
    int32_t gpu_batch;    /* images of a GPU in a step */
    int64_t gpus;         /* in all */
    bucket_sizes buckets; /* in float32 */
    bool halved;          /* gradients travel in 16 bits */
} plan_request;

/* Builds the step of a GPU, in the precision that the settings want there. ERROR_SETTINGS names the setting. */
int plan_step_build(plan_step *s, const settings *config, const plan_request *wanted);

/* The network is what the file lists instead: lines NAME,WEIGHTS,MMAC in the order of the forward, MMAC for each image;
 * a line that begins with # says nothing. A third of the work is the forward. ERROR_DATA names file and line. */
int plan_step_read(plan_step *s, const settings *config, const plan_request *wanted, const char *path);

void plan_step_free(plan_step *s);

#endif

/* What a run would do on a cluster that is not here: step, efficiency, data and batch for 1 to so many nodes. */
#ifndef TESKD_TOOLS_PLAN_H
#define TESKD_TOOLS_PLAN_H

#include "base/log.h"
#include "base/settings.h"
#include "tools/plan/model.h"

#include <stdint.h>

/* docs/scaling.md says where the defaults come from. */
typedef struct {
    int64_t nodes, gpus;    /* GPUs of a node */
    int64_t gpu_batch;      /* images of a GPU in a step; 0: train.batch among all GPUs */
    double net_gbits;       /* of an adapter */
    int64_t adapters;       /* of a node */
    double inside_gbytes;   /* per second, between the GPUs of a node */
    double step_ms;         /* of one GPU alone, as measured; 0: an H100's at best */
    double hop_us;          /* from a GPU to the next */
    double noise_percent;   /* deviation of a step's time */
    double net_percent;     /* of the adapters' rate that a sum reaches */
    double image_kbytes;    /* stored, of an image */
    double images_per_core; /* decoded per second */
    const char *pattern;    /* NULL: what NCCL or MPI would take; or one of sum_pattern_names */
    const char *layers;     /* NULL: the settings' network; or a list of layers (plan_step.h) */
    bool json;
} plan_options;

plan_options plan_defaults(void);

/* ERROR_USAGE or ERROR_SETTINGS names the option or setting. */
int plan_run(const settings *config, const plan_options *options, logger *log);

#endif

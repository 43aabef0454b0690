/* From an operation graph to execution plans: cuDNN's heuristics, our rules, and text to keep a plan on disk.
 *
 * Plans are built for a device description, never for a handle, so that they can be built for a GPU that is not there.
 */
#ifndef TESKD_KERNELS_CUDA_CUDNN_PLAN_H
#define TESKD_KERNELS_CUDA_CUDNN_PLAN_H

#include "cudnn_scope.h"

#include <stdbool.h>

typedef struct {
    cudnnBackendDescriptor_t device; /* finalized CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR */
    bool tensor_cores;               /* allowed, and then preferred; float32 without TF32 may not use them */
    bool only_tensor_cores;          /* nothing else will do */
    bool unnoted;                    /* the operation's engines carry no note of the tensor cores that they use */
    bool deterministic;
    int compiled; /* how many plans at most may be compiled at run time, for seconds each, where no others will do */
    size_t workspace_limit;
} cudnn_rules;

typedef struct {
    cudnnBackendDescriptor_t descriptor; /* owned by the scope */
    cudnnBackendDescriptor_t config;     /* likewise; NULL of a plan from text */
    size_t workspace;
    bool tensor_cores, run_time_compiled;
} cudnn_plan;

/* Up to `wanted` plans that obey the rules, the most promising first, but those of large workspaces later; returns how
 * many, at least 1. ERROR_KERNEL when there is none. Of the scope a plan needs itself and its configuration; the graph
 * may be another's. */
int cudnn_plan_find(cudnn_scope *s, cudnnBackendDescriptor_t graph, const cudnn_rules *rules, int wanted,
                    cudnn_plan *plans);

/* The plan as cuDNN's JSON, to be freed. */
int cudnn_plan_save(cudnn_scope *s, const cudnn_plan *plan, char **text, size_t *bytes);

/* Makes the plan again from its own text, for a GPU that does not run it otherwise. A plan that was built for a
 * description of the GPU is documented to run only after it has been text. */
int cudnn_plan_remake(cudnn_scope *s, const cudnn_rules *rules, cudnn_plan *plan);

/* A plan from such text. ERROR_KERNEL when cuDNN does not take it. */
int cudnn_plan_load(cudnn_scope *s, const cudnn_rules *rules, const char *text, size_t bytes, cudnn_plan *plan);

#endif

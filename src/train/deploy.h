/* A trained network as other programs take it: the evaluation graph and the weights of a checkpoint. */
#ifndef TESKD_TRAIN_DEPLOY_H
#define TESKD_TRAIN_DEPLOY_H

#include "base/settings.h"
#include "dist/comm.h"
#include "io/data/source.h"
#include "io/file/safetensors.h"
#include "io/file/tensor_file.h"
#include "model/step.h"

enum { DEPLOY_TEXTS_MAX = 20, DEPLOY_TEXT_BYTES = SETTING_TEXT_BYTES };

typedef struct {
    const data_source *source;
    step_options options;
    graph g; /* of one picture, without rewrites */
    model m;
    tensor_file *checkpoint;
    const char *path;    /* of the checkpoint; the caller's */
    const char *prefix;  /* of the tensors that are taken */
    int64_t epoch, step; /* where the training stood */
    int64_t steps_done;
    int32_t n_texts; /* what a file says about itself */
    safetensors_text texts[DEPLOY_TEXTS_MAX];
    char values[DEPLOY_TEXTS_MAX][DEPLOY_TEXT_BYTES]; /* of the texts */
} deployment;

/* Opens a checkpoint: the teacher alone, or with the students; the weights, or with `averages` their averages. */
int deployment_open(deployment *d, const char *checkpoint, bool with_students, bool averages, comm *ranks);
void deployment_close(deployment *d);

/* The parameters and running statistics of the graph in the order of their creation: the next one after `last`
 * (VALUE_NONE: the first), VALUE_NONE at the end. */
value_id deployment_next_tensor(const deployment *d, value_id last);

/* The tensor's values in PyTorch's layout, which the caller frees; its shape and rank, if they are not NULL. ERROR_DATA
 * when one is not finite. */
int deployment_read(const deployment *d, value_id tensor, float **values, int64_t shape[4], int *rank);

/* ERROR_DATA, naming the tensor and the element, when a number is not finite: other programs would take what a diverged
 * training leaves for a network. */
int deployment_check_finite(const deployment *d, const char *tensor, const float *values, int64_t count);

/* Writes the file `path`; fold_norms lets every normalisation that follows a convolution become part of it. */
int deployment_write_safetensors(const deployment *d, const char *path);
int deployment_write_onnx(const deployment *d, const char *path, bool fold_norms);

#endif

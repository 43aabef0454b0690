/* A trained network as other programs take it: the evaluation graph and the weights of a checkpoint. */
#ifndef TESKD_EXPORT_EXPORT_H
#define TESKD_EXPORT_EXPORT_H

#include "base/settings.h"
#include "dist/comm.h"
#include "io/file/safetensors.h"
#include "io/file/tensor_file.h"
#include "model/step.h"
#include "session/configure.h"

enum { EXPORT_TEXTS_MAX = 20, EXPORT_TEXT_BYTES = SETTING_TEXT_BYTES };

typedef struct {
    image_options images;
    step_options options;
    graph g; /* of one image, without rewrites */
    model m;
    tensor_file *checkpoint;
    const char *path;    /* of the checkpoint; the caller's */
    const char *prefix;  /* of the tensors that are taken */
    int64_t epoch, step; /* where the training stood */
    int64_t steps_done;
    int32_t n_texts; /* what a file says about itself */
    safetensors_text texts[EXPORT_TEXTS_MAX];
    char *class_names;                                /* parted by line feeds; NULL: the checkpoint has none */
    char values[EXPORT_TEXTS_MAX][EXPORT_TEXT_BYTES]; /* of the texts */
} network_export;

/* Opens a checkpoint: the teacher alone, or with the students; the weights, or with `ema` their EMA. */
int export_open(network_export *d, const char *checkpoint, bool with_students, bool ema, comm *ranks);
void export_close(network_export *d);

/* The parameters and running statistics of the graph in the order of their creation: the next one after `last`
 * (VALUE_NONE: the first), VALUE_NONE at the end. */
value_id export_next_tensor(const network_export *d, value_id last);

/* The tensor's values in PyTorch's layout, which the caller frees; its shape and rank, if they are not NULL. ERROR_DATA
 * when one is not finite. */
int export_read(const network_export *d, value_id tensor, float **values, int64_t shape[4], int *rank);

/* ERROR_DATA, naming the tensor and the element, when a number is not finite: other programs would take what a diverged
 * training leaves for a network. */
int export_check_finite(const network_export *d, const char *tensor, const float *values, int64_t count);

/* Writes the file `path`; fold_norms lets every normalisation that follows a convolution become part of it. */
int export_write_safetensors(const network_export *d, const char *path);
int export_write_onnx(const network_export *d, const char *path, bool fold_norms);

#endif

/* Reference results: one training problem solved elsewhere in float64, to hold this program against.
 *
 * An HDF5 file with the problem in root attributes, results as datasets, and for each tensor of weights or
 * gradients its norm, its sum and a few sampled elements. docs/formats.md describes it.
 * Threads: the main thread only (HDF5).
 */
#ifndef TESKD_IO_FILE_REFERENCE_FILE_H
#define TESKD_IO_FILE_REFERENCE_FILE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t file; /* HDF5 handle */
    int64_t bytes;
    char path[512];
    char network[64];
    int64_t classes, seed, batch, height, width, nesterov, steps;
    int64_t base_width, student_width; /* 0: the network's own */
    double temperature, ce_weight, kd_weight, feature_weight, teacher_weight, student_weights[3];
    double lr, momentum, weight_decay;
    double lars_eta; /* 0: the updates are those of SGD */
} reference_file;

/* Sampled elements of one tensor, in file order. */
typedef struct {
    double l2, sum;  /* of the whole tensor; NaN where the file has every element */
    int64_t samples; /* elements below */
    int64_t *index;  /* NULL when every element is there */
    double *value;
} reference_tensor;

/* Reads the whole file once in a child process: HDF5 1.10 crashes or hangs on some files that are damaged or were made
 * to do harm. ERROR_FILE when the child does not come back; what else is wrong is left to the functions below. */
int reference_try(const char *path);

/* Errors name the path and the attribute or dataset that is missing or of the wrong shape. */
int reference_open(reference_file *f, const char *path);
void reference_close(reference_file *f);

/* Reads a float64 or int32 dataset of exactly `count` elements. */
int reference_read(const reference_file *f, const char *dataset, int64_t count, double *values);

/* Reads "gradients/NAME" or "after/NAME"; free with reference_tensor_free. */
int reference_read_tensor(const reference_file *f, const char *group, const char *name, reference_tensor *out);
void reference_tensor_free(reference_tensor *t);

/* Does the file have something of that name? */
bool reference_has(const reference_file *f, const char *group, const char *name);

/* Number of tensors in a group, to see that none was left out; negative on failure. */
int64_t reference_count(const reference_file *f, const char *group);

#endif

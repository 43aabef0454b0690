/* The problem of a reference file: weights, input and classes made by its generator. Private to this comparison. */
#ifndef TESKD_TOOLS_REFERENCE_PROBLEM_H
#define TESKD_TOOLS_REFERENCE_PROBLEM_H

#include "io/file/reference_file.h"
#include "run/program.h"

/* Fills parameters, running statistics (0 and 1) and momentum (0). */
int problem_fill_store(store *tensors, const reference_file *file);

/* The classes of the batch. */
void problem_targets(const reference_file *file, int32_t *target);

/* Fills the program's inputs, the same for every step. */
int problem_fill_inputs(const program *p, const runtime *r, const reference_file *file);

/* First values of the input in (n, c, h, w) order. */
void problem_input_head(const reference_file *file, int count, double *values);

#endif

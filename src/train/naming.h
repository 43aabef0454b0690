/* Names of tensors in files that other programs write and read.
 *
 * The program's own names are those of the published state_dict; for the ResNets of 224x224 pictures they are
 * torchvision's as well.
 */
#ifndef TESKD_TRAIN_NAMING_H
#define TESKD_TRAIN_NAMING_H

#include <stdbool.h>
#include <stddef.h>

/* PyTorch counts a norm's batches beside its running statistics; this program does not. */
#define NAMING_COUNTER_SUFFIX ".num_batches_tracked"

/* PyTorch's AveragedModel counts its updates beside the module that it wraps. */
#define NAMING_UPDATES "n_averaged"

bool naming_ends_with(const char *name, const char *suffix);

/* Does the tensor belong to a student (rather than the teacher, or anything unknown)? */
bool naming_is_student(const char *name);

/* The counter beside a running mean; false for every other tensor. */
bool naming_counter(const char *name, char *counter, size_t bytes);

/* Is it one of the whole numbers that PyTorch counts in: a norm's batches, or an average's updates? */
bool naming_is_counter(const char *name);

#endif

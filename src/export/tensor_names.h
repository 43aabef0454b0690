/* Names of tensors in files that other programs write and read.
 *
 * The program's own names are those of the published state_dict; for the ResNets of 224x224 images they are
 * torchvision's as well.
 */
#ifndef TESKD_EXPORT_TENSOR_NAMES_H
#define TESKD_EXPORT_TENSOR_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* PyTorch counts a norm's batches beside its running statistics; this program does not. */
#define TENSOR_NAMES_COUNTER_SUFFIX ".num_batches_tracked"

/* PyTorch's AveragedModel counts its updates beside the module that it wraps. */
#define TENSOR_NAMES_UPDATES "n_averaged"

bool tensor_names_ends_with(const char *name, const char *suffix);

/* The counter beside a running mean; false for every other tensor. */
bool tensor_names_counter(const char *name, char *counter, size_t bytes);

/* Is it one of the whole numbers that PyTorch counts in: a norm's batches, or an average's updates? */
bool tensor_names_is_counter(const char *name);

#endif

/* The names of the classes that a checkpoint's network tells apart, in their order. One thread. */
#ifndef TESKD_TRAIN_CLASS_NAMES_H
#define TESKD_TRAIN_CLASS_NAMES_H

#include "io/data/source.h"
#include "io/file/tensor_file.h"

/* Writes those of the set, if it has any. */
int class_names_write(tensor_file *file, const image_set *set);

/* All names, parted by line feeds, for the caller to free; NULL where the checkpoint has none. */
int class_names_read(tensor_file *file, char **text);

/* ERROR_SETTINGS, naming the first class that differs, where both have names and they are not the same. `path` is the
 * checkpoint's. */
int class_names_check(tensor_file *file, const char *path, const image_set *set);

#endif

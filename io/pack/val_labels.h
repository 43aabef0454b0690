/* Which class a validation image is of, where it lies in no class folder: ImageNet's do not. One thread. */
#ifndef TESKD_IO_PACK_VAL_LABELS_H
#define TESKD_IO_PACK_VAL_LABELS_H

#include "io/pack/input.h"

typedef struct {
    char *name; /* of the file, without its ending */
    int32_t label;
} val_label;

typedef struct {
    val_label *labels; /* sorted by name */
    int64_t count, room;
} val_labels;

/* Out of options->val_labels, or of what is beside the images: Kaggle's LOC_val_solution.csv, a val.txt, or the
 * development kit, packed or not. The input has its classes. ERROR_DATA names the file and the line. */
int val_labels_read(val_labels *l, pack_input *input, const pack_options *options);

/* The label of a file, or -1; folders before its name and its ending do not count. */
int32_t val_labels_find(const val_labels *l, const char *path);

void val_labels_free(val_labels *l);

#endif

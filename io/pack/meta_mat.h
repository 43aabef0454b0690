/* The classes of ImageNet's development kit: data/meta.mat, a MATLAB file (version 5). Any thread. */
#ifndef TESKD_IO_PACK_META_MAT_H
#define TESKD_IO_PACK_META_MAT_H

#include <stddef.h>
#include <stdint.h>

enum { META_TEXT_BYTES = 256, META_WNID_BYTES = 64 };

typedef struct {
    int32_t id;                  /* ILSVRC2012_ID: what the validation images' list says */
    char wnid[META_WNID_BYTES];  /* "n01440764" */
    char words[META_TEXT_BYTES]; /* "tench, Tinca tinca" */
} meta_class;

/* All classes of the structure `synsets`; the caller frees them. ERROR_DATA, without a file's name, for what is none.
 */
int meta_mat_read(const uint8_t *bytes, size_t size, meta_class **classes, int32_t *count);

#endif

/* The way back from shards to class folders. */
#ifndef TESKD_IO_PACK_UNPACK_H
#define TESKD_IO_PACK_UNPACK_H

#include "io/pack/visit.h"

/* A visit's function; the context is the folder. Writes FOLDER/train/NAME or FOLDER/val/NAME, the bytes as they are
 * stored. ERROR_DATA for a name that would lead out of the folder. */
int unpack_image(void *folder, const visited_image *image);

#endif

/* From an original's bytes to what a shard holds of it. One thread per preparer. */
#ifndef TESKD_IO_PACK_PREPARE_H
#define TESKD_IO_PACK_PREPARE_H

#include "io/image/decode.h"
#include "io/pack/input.h"
#include "io/shard/shard.h"

typedef struct {
    int32_t max_side, quality;
    image_decoder *decoder;
    uint8_t *pixels, *encoded; /* of an image that is made anew */
    size_t room;
} preparer;

int preparer_open(preparer *p, int32_t max_side, int32_t quality);

/* Fills size, height, width and flags of `image`; `*bytes` belong to the buffer or the preparer, until the next call.
 * ERROR_DATA where the original is no image that can be used. */
int prepare_image(preparer *p, const char *name, const byte_buffer *original, shard_image *image, const void **bytes);

void preparer_close(preparer *p);

#endif

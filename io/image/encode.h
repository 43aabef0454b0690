/* Images as JPEG or PNG files' bytes. Any thread. ERROR_MEMORY, or ERROR_DATA for a size that the format lacks. */
#ifndef TESKD_IO_IMAGE_ENCODE_H
#define TESKD_IO_IMAGE_ENCODE_H

#include "base/image.h"

#include <stddef.h>

enum { ENCODE_QUALITY = 90 }; /* unless another one is wanted */

/* Of RGB pixels [height][width][3]; *bytes is the caller's to free. quality: 1 to 100; 4:2:0 below 90, 4:4:4 from 90
 * on. */
int image_encode_jpeg(const uint8_t *pixels, int32_t height, int32_t width, int quality, uint8_t **bytes, size_t *size);

/* The same without loss. */
int image_encode_png(const uint8_t *pixels, int32_t height, int32_t width, uint8_t **bytes, size_t *size);

#endif

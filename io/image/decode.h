/* Compressed images: what a file's bytes are, and the pixels of a view of them.
 *
 * JPEG (grey, YCbCr, RGB, CMYK, YCCK; baseline or progressive) and PNG, told apart by their first bytes. Pixels are RGB
 * bytes in rows from the top, and equal Pillow's to the bit: Image.open, convert("RGB"), crop, resize with BILINEAR.
 * An EXIF orientation is not applied. Only what a view needs is decoded, and rows are scaled as they are decoded, so
 * that memory does not grow with the image's height.
 *
 * Errors are ERROR_DATA, with the reason but without a file's name (the caller knows it), or ERROR_MEMORY.
 */
#ifndef TESKD_IO_IMAGE_DECODE_H
#define TESKD_IO_IMAGE_DECODE_H

#include "base/image.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum { IMAGE_JPEG, IMAGE_PNG, IMAGE_FORMATS } image_format;

/* Of the header. */
typedef struct {
    image_format format;
    int32_t height, width;
    int32_t channels; /* as stored: 1 grey, 3 colour, 4 CMYK; of PNG also 2 and 4 with an alpha channel */
    bool progressive; /* JPEG whose whole coefficients must be held to be decoded; interlaced PNG */
} image_info;

/* One thread's memory and state for decoding; it is used again for each image. */
typedef struct image_decoder image_decoder;

int image_decoder_open(image_decoder **decoder);

/* `*decoder` becomes NULL and may be NULL. */
void image_decoder_close(image_decoder **decoder);

/* Reads the header alone. */
int image_probe(image_decoder *decoder, const void *bytes, size_t size, image_info *info);

/* The view of the image as [window.height][window.width][3]. The region lies in the image and the window in the scaled
 * region, else ERROR_INTERNAL. A file that ends too early is refused, whether or not the view needs what is missing. */
int image_decode(image_decoder *decoder, const void *bytes, size_t size, const image_view *view, uint8_t *pixels);

/* The view that is the whole image as it is. */
image_view image_whole(const image_info *info);

/* The instruction set of the resampling: "avx512", "avx2" or "plain". The best of this processor unless chosen, for
 * tests: every one gives the same bits. ERROR_SETTINGS for one that this processor lacks. */
const char *image_isa(void);
int image_choose_isa(const char *name);

#endif

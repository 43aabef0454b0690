/* What every part of the program knows of an image. */
#ifndef TESKD_BASE_IMAGE_H
#define TESKD_BASE_IMAGE_H

#include <stdint.h>

enum { IMAGE_CHANNELS = 3 }; /* red, green, blue */

/* A rectangle of pixels. */
typedef struct {
    int32_t top, left, height, width;
} image_region;

/* What is made of an image: `region` of it is scaled to height x width pixels, of which `window` is kept. */
typedef struct {
    image_region region;
    int32_t height, width;
    image_region window;
} image_view;

#endif

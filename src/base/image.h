/* What every part of the program knows of an image. */
#ifndef TESKD_BASE_IMAGE_H
#define TESKD_BASE_IMAGE_H

enum { IMAGE_CHANNELS = 3 }; /* red, green, blue */

#endif

/* What the tests of images share: pictures drawn by rule, JPEG files of every kind, and the plain way to a view. */
#ifndef TESKD_TESTS_IMAGE_CASE_H
#define TESKD_TESTS_IMAGE_CASE_H

#include "base/image.h"

#include <stdbool.h>
#include <stddef.h>

/* Waves, edges and noise, [height][width][channels]; the caller frees it. */
uint8_t *case_picture(int32_t height, int32_t width, int channels, uint32_t seed);

/* How a JPEG is written. */
typedef struct {
    int channels, horizontal, vertical; /* samples of the first channel for each of the others */
    bool progressive;
    int restart; /* MCUs between restart markers; 0: none */
    int quality;
} jpeg_kind;

/* Bytes of a JPEG of the pixels; the caller frees them. */
uint8_t *case_jpeg(const jpeg_kind *kind, const uint8_t *pixels, int32_t height, int32_t width, size_t *size);

/* All pixels of a JPEG as RGB, by libjpeg alone; the caller frees them. Not for four channels. */
uint8_t *case_whole(const uint8_t *bytes, size_t size, int32_t *height, int32_t *width);

/* The view of RGB pixels in rows of `width`, by the definition; the caller frees it. */
uint8_t *case_view(const uint8_t *pixels, int32_t width, const image_view *view);

/* A random view of an image: of sides up to `most`. */
image_view case_random_view(int32_t height, int32_t width, int32_t most, uint32_t *state);

/* In [low, high]. */
int32_t case_random(uint32_t *state, int32_t low, int32_t high);

#endif

/* The readers of the formats, behind decode.h. Private to the room.
 *
 * A reader is one thread's. `start` reads an image's header, `rows` hands the rows that the resampler needs to it; the
 * bytes stay where they are in between. After an error, and for any number of images, `start` may be called again.
 */
#ifndef TESKD_IO_IMAGE_FORMATS_H
#define TESKD_IO_IMAGE_FORMATS_H

#include "decode.h"
#include "resample.h"

/* What one image may take: pixels in all, and bytes of one that must be held whole to be decoded. */
enum { IMAGE_MOST_PIXELS = 1 << 29, IMAGE_MOST_HELD = 1 << 30 };

typedef struct jpeg_reader jpeg_reader;
typedef struct png_reader png_reader;

int jpeg_reader_open(jpeg_reader **reader);
void jpeg_reader_close(jpeg_reader **reader);
int jpeg_reader_start(jpeg_reader *reader, const uint8_t *bytes, size_t size, image_info *info);
int jpeg_reader_rows(jpeg_reader *reader, resampler *r);

int png_reader_open(png_reader **reader);
void png_reader_close(png_reader **reader);
int png_reader_start(png_reader *reader, const uint8_t *bytes, size_t size, image_info *info);
int png_reader_rows(png_reader *reader, resampler *r);

/* ERROR_DATA for more than IMAGE_MOST_PIXELS. */
int image_check_size(const image_info *info);

#endif

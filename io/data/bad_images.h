/* The images of a set that could not be read in this process: what becomes of them, and how many may be. */
#ifndef TESKD_IO_DATA_BAD_IMAGES_H
#define TESKD_IO_DATA_BAD_IMAGES_H

#include "base/log.h"
#include "io/data/source.h"

typedef struct bad_images bad_images;

typedef struct {
    const image_set *set;
    bool substitutes; /* off: the first one is a failure */
    double limit;     /* share of the set's images; one always may be bad */
    logger *log;      /* NULL: says nothing */
} bad_images_options;

int bad_images_open(bad_images **made, const bad_images_options *options);

/* After reading image `index` has failed with `status` and error_message(). Returns 0 where another image is to take
 * its place, else a failure. Each image is named once, by a warning. Any thread. */
int bad_images_add(bad_images *bad, int32_t index, int status);

/* The image that takes the place: always the same one for an image. */
int32_t bad_images_substitute(const image_set *set, int32_t index);

/* How many different ones there were. Any thread. */
int64_t bad_images_count(bad_images *bad);

/* `*bad` becomes NULL and may be NULL. */
void bad_images_close(bad_images **bad);

#endif

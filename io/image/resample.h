/* The scaling of images, row by row: Pillow's BILINEAR to the bit. Private to the room.
 *
 * Each output is the sum of the inputs under a triangle, twice as wide as the step from output to output and never less
 * than two inputs; what of it lies outside the image is left out and the rest scaled to 1. First along the rows, then
 * down the columns. Weights are computed in float64 and rounded to multiples of 2^-22, sums are of integers and rounded
 * to bytes after either pass, so any order of adding gives the same. A pass that keeps the size changes nothing.
 *
 * Rows come in order from the top, with 4 bytes a pixel, and go through a ring of rows that are scaled along the row
 * already. Memory: RESAMPLE_ROWS input rows, and the ring, of window.width x (2 x height / out_height + a few) pixels.
 * A resampler is one thread's; it keeps its memory for the next image.
 */
#ifndef TESKD_IO_IMAGE_RESAMPLE_H
#define TESKD_IO_IMAGE_RESAMPLE_H

#include "base/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RESAMPLE_ROWS = 4,    /* that are handed over at once */
    RESAMPLE_PIXEL = 4,   /* bytes of an input pixel: red, green, blue and one that is ignored */
    RESAMPLE_BITS = 22,   /* after the point of a weight */
    RESAMPLE_LOW = 14,    /* bits of its lower half, so that both halves are products of 16-bit multiplications */
    RESAMPLE_GROUP = 4,   /* weights that are used at once */
    RESAMPLE_BEYOND = 64, /* bytes past a row that the kernels may write in the ring, and read besides zero weights */
};

/* weight = high * 2^RESAMPLE_LOW + low */
typedef struct {
    int16_t low[RESAMPLE_GROUP], high[RESAMPLE_GROUP];
} resample_weights;

/* The inputs of one output. */
typedef struct {
    int32_t first, taps;
} resample_span;

/* One axis of a view: output i is a weighted sum of spans[i].taps inputs from begin + spans[i].first on. */
typedef struct {
    bool same;          /* output i is input begin + i: neither spans nor weights */
    int32_t begin, end; /* inputs that the outputs need */
    int32_t outputs, most_taps;
    int32_t groups; /* of weights of each output; those past its taps are 0 */
    resample_span *spans;
    resample_weights *weights; /* [outputs][groups] */
    size_t spans_room, weights_room;
} resample_axis;

/* The inner loops for one instruction set. */
typedef struct {
    const char *name;
    /* RESAMPLE_ROWS rows along the row; output rows are RGB. */
    void (*across)(const uint8_t *const *in, const resample_axis *axis, uint8_t *const *out);
    /* The same where the size stays: leaves the fourth bytes out. */
    void (*pack)(const uint8_t *in, int32_t pixels, uint8_t *out);
    /* One output row of `bytes` from rows[0..taps); rows[taps] can be read as well. Writes nothing past the end. */
    void (*down)(const uint8_t *const *rows, int32_t taps, const resample_weights *weights, int32_t bytes,
                 uint8_t *out);
} resample_kernels;

extern const resample_kernels resample_plain, resample_avx2, resample_avx512;

typedef struct {
    const resample_kernels *kernels;
    resample_axis across, down;
    image_region needed; /* of the image: what must be handed over */
    uint8_t *pixels;     /* the output */
    int32_t received, made;
    uint8_t *input, *ring;
    const uint8_t **rows; /* of one output row */
    size_t input_room, ring_room, rows_room;
    size_t input_bytes, ring_bytes; /* of a row */
    int32_t ring_rows;
} resampler;

/* Of zeros, a resampler without memory. */
void resampler_free(resampler *r);

/* Begins an image. Then `needed` says which pixels are to be handed over. */
int resampler_begin(resampler *r, const resample_kernels *kernels, const image_view *view, uint8_t *pixels);

/* Room for input rows of `width` pixels, to be filled by the caller. */
int resampler_reserve(resampler *r, int32_t width, uint8_t *rows[RESAMPLE_ROWS]);

/* Takes the next `count` rows; pixel `left` of them is the first that is needed. */
void resampler_push(resampler *r, int32_t count, int32_t left);

bool resampler_done(const resampler *r);

#endif

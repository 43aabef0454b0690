/* Owns nothing. Invariant: equal arguments give the same view, and it lies in the image. Any thread. */
#include "crop.h"
#include "base/rng.h"

#include <math.h>
#include <stdbool.h>

enum { TRIES = 10, FIRST_TRY = 1, DRAWS_OF_A_TRY = 2, TOP = FIRST_TRY + TRIES * DRAWS_OF_A_TRY, LEFT };

/* Whose draws. */
typedef struct {
    uint64_t seed, stream;
    uint32_t position;
} draws;

static uint64_t index_of(const draws *d, int number)
{
    return (uint64_t)number << 32 | d->position;
}

static double draw_between(const draws *d, int number, double low, double high)
{
    return low + (high - low) * rng_uniform(d->seed, d->stream, index_of(d, number));
}

/* In [0, most]. */
static int32_t draw_offset(const draws *d, int number, int32_t most)
{
    return (int32_t)rng_below(d->seed, d->stream, index_of(d, number), (uint32_t)most + 1);
}

static bool fits(double side, int32_t size)
{
    return side > 0 && side <= size;
}

/* A size of that try; false when it does not fit. */
static bool try_size(const crop_range *range, const draws *d, int attempt, int32_t height, int32_t width,
                     image_region *crop)
{
    const int first = FIRST_TRY + attempt * DRAWS_OF_A_TRY;
    const double area = (double)height * width * draw_between(d, first, range->scale[0], range->scale[1]);
    const double ratio = exp(draw_between(d, first + 1, log(range->ratio[0]), log(range->ratio[1])));
    const double crop_width = rint(sqrt(area * ratio)), crop_height = rint(sqrt(area / ratio));
    if (!fits(crop_width, width) || !fits(crop_height, height))
        return false;
    *crop = (image_region){.height = (int32_t)crop_height, .width = (int32_t)crop_width};
    return true;
}

static int32_t rounded_side(double side)
{
    return side < 1 ? 1 : (int32_t)rint(side);
}

/* The largest crop of an allowed ratio, in the middle. */
static image_region central(const crop_range *range, int32_t height, int32_t width)
{
    const double ratio = (double)width / height;
    image_region crop = {.height = height, .width = width};
    if (ratio < range->ratio[0])
        crop.height = rounded_side(width / range->ratio[0]);
    else if (ratio > range->ratio[1])
        crop.width = rounded_side(height * range->ratio[1]);
    crop.top = (height - crop.height) / 2;
    crop.left = (width - crop.width) / 2;
    return crop;
}

image_region crop_random(const crop_range *range, int32_t height, int32_t width, uint64_t seed, uint64_t stream,
                         uint32_t position)
{
    const draws d = {.seed = seed, .stream = stream, .position = position};
    image_region crop;
    for (int attempt = 0; attempt < TRIES; attempt++)
        if (try_size(range, &d, attempt, height, width, &crop)) {
            crop.top = draw_offset(&d, TOP, height - crop.height);
            crop.left = draw_offset(&d, LEFT, width - crop.width);
            return crop;
        }
    return central(range, height, width);
}

static int32_t scaled(int32_t resize, int32_t longer, int32_t shorter)
{
    return (int32_t)((int64_t)resize * longer / shorter);
}

/* Half of it, a half rounded to even. */
static int32_t middle(int32_t free)
{
    return (int32_t)rint(free / 2.0);
}

image_view crop_center(int32_t height, int32_t width, int32_t resize, int32_t side)
{
    image_view view = {.region = {.height = height, .width = width}, .height = resize, .width = resize};
    if (height > width)
        view.height = scaled(resize, height, width);
    else
        view.width = scaled(resize, width, height);
    view.window = (image_region){
        .top = middle(view.height - side), .left = middle(view.width - side), .height = side, .width = side};
    return view;
}

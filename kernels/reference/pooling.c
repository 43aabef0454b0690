/* Maximum over windows and its gradient. A window is cut to the feature map, so that padding never wins; the first of
 * several largest elements, in (kh, kw) order, gets the gradient. Nothing is kept between calls. */
#include <math.h>
#include <string.h>

#include "reference.h"

/* The part of a window that lies on the feature map. */
typedef struct {
    int top, bottom, left, right;
} window;

static window window_at(const op_attr *attr, const tensor_desc *map, int oy, int ox)
{
    int y = oy * attr->stride - attr->pad, x = ox * attr->stride - attr->pad;
    int bottom = y + attr->kernel, right = x + attr->kernel;
    return (window){y < 0 ? 0 : y, bottom > map->dim[1] ? map->dim[1] : bottom, x < 0 ? 0 : x,
                    right > map->dim[2] ? map->dim[2] : right};
}

/* An element's number in its window, of the feature map's position `at` of channel 0. */
static uint8_t number_of(const op_attr *attr, const tensor_desc *map, int oy, int ox, int64_t at)
{
    int64_t place = at / map->dim[3], y = place / map->dim[2], x = place % map->dim[2];
    return (uint8_t)((y - oy * attr->stride + attr->pad) * attr->kernel + x - ox * attr->stride + attr->pad);
}

/* Where in a feature map's channel the largest element of a window lies, or its last NaN; `image` begins there. */
static int64_t largest_in(const double *image, const tensor_desc *map, window v)
{
    int64_t channels = map->dim[3], width = map->dim[2], best = (v.top * width + v.left) * channels;
    for (int y = v.top; y < v.bottom; y++)
        for (int x = v.left; x < v.right; x++) {
            int64_t at = (y * width + x) * channels;
            if (image[at] > image[best] || isnan(image[at]))
                best = at;
        }
    return best;
}

/* Writes the maxima to `y` and their numbers to `choice`, or with `dx` gives each `dy` to the place of its maximum. */
static void each_window(const kernel_request *request, const tensor_desc *pooled, const double *x, double *y,
                        uint8_t *choice, const double *dy, double *dx)
{
    const tensor_desc *map = &request->in[0];
    int64_t image = (int64_t)map->dim[1] * map->dim[2] * map->dim[3], i = 0;
    for (int64_t n = 0; n < map->dim[0]; n++)
        for (int oy = 0; oy < pooled->dim[1]; oy++)
            for (int ox = 0; ox < pooled->dim[2]; ox++) {
                window v = window_at(&request->node.attr, map, oy, ox);
                for (int64_t c = 0; c < map->dim[3]; c++, i++) {
                    int64_t first = n * image + c, place = largest_in(x + first, map, v);
                    if (dx)
                        dx[first + place] += dy[i];
                    else
                        y[i] = x[first + place];
                    if (choice)
                        choice[i] = number_of(&request->node.attr, map, oy, ox, place);
                }
            }
}

int reference_max_pool(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    each_window(request, &request->out[0], args->in[0], args->out[0], args->out[1], NULL, NULL);
    return 0;
}

static void give_to_chosen(const kernel_request *request, const double *dy, const uint8_t *choice, double *dx)
{
    const op_attr *attr = &request->node.attr;
    const tensor_desc *map = &request->out[0], *pooled = &request->in[1];
    int64_t channels = map->dim[3];
    for (int64_t i = 0; i < tensor_count(pooled); i++) {
        int64_t place = i / channels, ox = place % pooled->dim[2], oy = place / pooled->dim[2] % pooled->dim[1];
        int64_t y = oy * attr->stride - attr->pad + choice[i] / attr->kernel,
                x = ox * attr->stride - attr->pad + choice[i] % attr->kernel,
                n = place / (pooled->dim[1] * pooled->dim[2]);
        if (y >= 0 && y < map->dim[1] && x >= 0 && x < map->dim[2])
            dx[((n * map->dim[1] + y) * map->dim[2] + x) * channels + i % channels] += dy[i];
    }
}

int reference_max_pool_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    memset(args->out[0], 0, tensor_bytes(&request->out[0]));
    if (args->in[2])
        give_to_chosen(request, args->in[1], args->in[2], args->out[0]);
    else
        each_window(request, &request->in[1], args->in[0], NULL, NULL, args->in[1], args->out[0]);
    return 0;
}

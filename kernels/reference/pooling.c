/* Maximum over windows and its gradient. A window is cut to the map, so that padding never wins; the first of several
 * largest elements, in (kh, kw) order, gets the gradient. Nothing is kept between calls. */
#include <string.h>

#include "reference.h"

/* The part of a window that lies on the map. */
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

/* Where in a map's channel the largest element of a window lies. `picture` begins with that channel. */
static int64_t largest_in(const double *picture, const tensor_desc *map, window v)
{
    int64_t channels = map->dim[3], width = map->dim[2], best = (v.top * width + v.left) * channels;
    for (int y = v.top; y < v.bottom; y++)
        for (int x = v.left; x < v.right; x++) {
            int64_t at = (y * width + x) * channels;
            if (picture[at] > picture[best])
                best = at;
        }
    return best;
}

/* Writes the maxima to `y`, or with `dx` gives each `dy` to the place of its maximum. */
static void each_window(const kernel_request *request, const tensor_desc *pooled, const double *x, double *y,
                        const double *dy, double *dx)
{
    const tensor_desc *map = &request->in[0];
    int64_t picture = (int64_t)map->dim[1] * map->dim[2] * map->dim[3], i = 0;
    for (int64_t n = 0; n < map->dim[0]; n++)
        for (int oy = 0; oy < pooled->dim[1]; oy++)
            for (int ox = 0; ox < pooled->dim[2]; ox++) {
                window v = window_at(&request->node.attr, map, oy, ox);
                for (int64_t c = 0; c < map->dim[3]; c++, i++) {
                    int64_t first = n * picture + c, at = first + largest_in(x + first, map, v);
                    if (dx)
                        dx[at] += dy[i];
                    else
                        y[i] = x[at];
                }
            }
}

int reference_max_pool(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    each_window(request, &request->out[0], args->in[0], args->out[0], NULL, NULL);
    return 0;
}

int reference_max_pool_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    memset(args->out[0], 0, tensor_bytes(&request->out[0]));
    each_window(request, &request->in[1], args->in[0], NULL, args->in[1], args->out[0]);
    return 0;
}

/* Ops that move, add or average values: upsample, patches, concatenation, slices, sums, pooling, weight folding.
 * A gradient is written as the transpose of its forward loop. Nothing is kept between calls. */
#include <string.h>

#include "reference.h"

int reference_add(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *y = args->out[0];
    for (int64_t i = 0; i < tensor_count(&request->out[0]); i++) {
        double sum = 0; /* y may be the memory of an input: read all, then write */
        for (int k = 0; k < request->node.n_in; k++)
            sum += args->in[k] ? ((const double *)args->in[k])[i] : 0;
        y[i] = sum;
    }
    return 0;
}

int reference_concat(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *a = args->in[0], *b = args->in[1];
    double *y = args->out[0];
    size_t ka = (size_t)request->in[0].dim[3], kb = (size_t)request->in[1].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->out[0]); row++, a += ka, b += kb, y += ka + kb) {
        memcpy(y, a, ka * sizeof *y);
        memcpy(y + ka, b, kb * sizeof *y);
    }
    return 0;
}

int reference_channel_slice(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = (const double *)args->in[0] + request->node.attr.channel_offset;
    double *y = args->out[0];
    size_t from = (size_t)request->in[0].dim[3], taken = (size_t)request->out[0].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->out[0]); row++, x += from, y += taken)
        memcpy(y, x, taken * sizeof *y);
    return 0;
}

/* Where output position `i` of 2 * size lies between the positions of the small line: its two neighbours and the
 * weight of the second. With align_corners the ends of both lines meet: i * (size - 1) / (2 * size - 1). */
typedef struct {
    int first, second;
    double weight;
} bilinear_source;

static bilinear_source source_of(int i, int size)
{
    int steps = 2 * size - 1, position = i * (size - 1);
    int first = position / steps;
    return (bilinear_source){first, first + 1 < size ? first + 1 : first, (double)(position % steps) / steps};
}

/* The four sources of an output position: offsets in a small image, and weights. */
static void four_sources(const tensor_desc *small, int y, int x, int64_t offset[4], double weight[4])
{
    bilinear_source v = source_of(y, small->dim[1]), h = source_of(x, small->dim[2]);
    int64_t width = small->dim[2], channels = small->dim[3];
    offset[0] = (v.first * width + h.first) * channels;
    offset[1] = (v.first * width + h.second) * channels;
    offset[2] = (v.second * width + h.first) * channels;
    offset[3] = (v.second * width + h.second) * channels;
    weight[0] = (1 - v.weight) * (1 - h.weight);
    weight[1] = (1 - v.weight) * h.weight;
    weight[2] = v.weight * (1 - h.weight);
    weight[3] = v.weight * h.weight;
}

/* First element of the channels at (n, y, x). */
static int64_t position(const tensor_desc *t, int n, int y, int x)
{
    return (((int64_t)n * t->dim[1] + y) * t->dim[2] + x) * t->dim[3];
}

int reference_upsample2x(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *small = &request->in[0], *large = &request->out[0];
    for (int n = 0; n < large->dim[0]; n++)
        for (int y = 0; y < large->dim[1]; y++)
            for (int x = 0; x < large->dim[2]; x++) {
                const double *in = (const double *)args->in[0] + position(small, n, 0, 0);
                double *out = (double *)args->out[0] + position(large, n, y, x);
                int64_t offset[4];
                double weight[4];
                four_sources(small, y, x, offset, weight);
                for (int c = 0; c < large->dim[3]; c++)
                    out[c] = weight[0] * in[offset[0] + c] + weight[1] * in[offset[1] + c] +
                             weight[2] * in[offset[2] + c] + weight[3] * in[offset[3] + c];
            }
    return 0;
}

int reference_upsample2x_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *small = &request->out[0], *large = &request->in[0];
    memset(args->out[0], 0, tensor_bytes(small));
    for (int n = 0; n < large->dim[0]; n++)
        for (int y = 0; y < large->dim[1]; y++)
            for (int x = 0; x < large->dim[2]; x++) {
                const double *dy = (const double *)args->in[0] + position(large, n, y, x);
                double *dx = (double *)args->out[0] + position(small, n, 0, 0);
                int64_t offset[4];
                double weight[4];
                four_sources(small, y, x, offset, weight);
                for (int s = 0; s < 4; s++)
                    for (int c = 0; c < large->dim[3]; c++)
                        dx[offset[s] + c] += weight[s] * dy[c];
            }
    return 0;
}

/* Where the channels at (n, y, x) lie in the patches: patch (y / size, x / size), element (y % size, x % size). */
static int64_t patch_position(const tensor_desc *patches, int size, int channels, int n, int y, int x)
{
    int element = (y % size * size + x % size) * channels;
    return position(patches, n, y / size, x / size) + element;
}

int reference_patchify(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *map = &request->in[0], *patches = &request->out[0];
    const double *in = args->in[0];
    double *out = args->out[0];
    for (int n = 0; n < map->dim[0]; n++)
        for (int y = 0; y < map->dim[1]; y++)
            for (int x = 0; x < map->dim[2]; x++)
                memcpy(out + patch_position(patches, request->node.attr.kernel, map->dim[3], n, y, x),
                       in + position(map, n, y, x), (size_t)map->dim[3] * sizeof *out);
    return 0;
}

int reference_unpatchify(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *map = &request->out[0], *patches = &request->in[0];
    const double *in = args->in[0];
    double *out = args->out[0];
    for (int n = 0; n < map->dim[0]; n++)
        for (int y = 0; y < map->dim[1]; y++)
            for (int x = 0; x < map->dim[2]; x++)
                memcpy(out + position(map, n, y, x),
                       in + patch_position(patches, request->node.attr.kernel, map->dim[3], n, y, x),
                       (size_t)map->dim[3] * sizeof *out);
    return 0;
}

/* Each row [p, q] of a matrix with 2K columns becomes [p + q, p]: the fold and, by luck, its transpose too. */
static int fold_rows(const kernel_request *request, const kernel_args *args)
{
    const double *in = args->in[0];
    double *out = args->out[0];
    int64_t rows = request->in[0].dim[0], half = tensor_count(&request->in[0]) / rows / 2;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < half; k++) {
            double p = in[row * 2 * half + k], q = in[row * 2 * half + half + k];
            out[row * 2 * half + k] = p + q;
            out[row * 2 * half + half + k] = p;
        }
    return 0;
}

int reference_fold_fuse_weight(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    return fold_rows(request, args);
}

int reference_fold_fuse_weight_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    return fold_rows(request, args);
}

int reference_global_average_pool(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *map = &request->in[0];
    const double *x = args->in[0];
    double *y = args->out[0];
    int channels = map->dim[3], area = map->dim[1] * map->dim[2];
    memset(y, 0, tensor_bytes(&request->out[0]));
    for (int n = 0; n < map->dim[0]; n++, y += channels)
        for (int p = 0; p < area; p++, x += channels)
            for (int c = 0; c < channels; c++)
                y[c] += x[c] / area;
    return 0;
}

int reference_global_average_pool_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const tensor_desc *map = &request->out[0];
    const double *dy = args->in[0];
    double *dx = args->out[0];
    int channels = map->dim[3], area = map->dim[1] * map->dim[2];
    for (int n = 0; n < map->dim[0]; n++, dy += channels)
        for (int p = 0; p < area; p++, dx += channels)
            for (int c = 0; c < channels; c++)
                dx[c] = dy[c] / area;
    return 0;
}

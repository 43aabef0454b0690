/* Convolutions in plain C: one loop over the taps for all three kinds, into float64 sums. */
#include "base/error.h"
#include "graph/node.h"
#include "plain_device.h"

#include <stdlib.h>

struct cuda_convolution {
    cuda_convolution_desc desc;
    void *stream;
};

typedef struct {
    cuda_convolution_desc desc;
    cuda_convolution_args args;
} convolution_run;

int cuda_convolution_prepare(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_convolution **out,
                             size_t *workspace)
{
    CHECK(!desc->bias || self->bias, ERROR_KERNEL, "this device has no convolution with a bias");
    cuda_convolution *v = malloc(sizeof *v);
    CHECK(v, ERROR_MEMORY, "no memory for a convolution");
    v->desc = *desc;
    v->stream = self->stream;
    *out = v;
    *workspace = 64;
    return 0;
}

cuda_sums_way cuda_sums_way_known(cuda_convolutions *self, const cuda_convolution_desc *desc)
{
    (void)desc;
    return self->sums;
}

void cuda_sums_way_keep(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_sums_way way)
{
    (void)desc;
    self->sums = way;
}

/* Adds one product of a tap to the sum it belongs to. */
static void add_tap(const cuda_convolution_desc *d, const cuda_convolution_args *args, double *sums, int64_t x,
                    int64_t w, int64_t y)
{
    if (d->kind == CUDA_CONVOLUTION_FORWARD)
        sums[y] += plain_load(args->x, d->type, x) * plain_load(args->w, d->type, w);
    else if (d->kind == CUDA_CONVOLUTION_DGRAD)
        sums[x] += plain_load(args->y, d->type, y) * plain_load(args->w, d->type, w);
    else
        sums[w] += plain_load(args->x, d->type, x) * plain_load(args->y, d->type, y);
}

/* All taps of output channel `o` at one place of y. */
static void add_taps(const cuda_convolution_desc *d, const cuda_convolution_args *args, double *sums, int32_t n,
                     int32_t row, int32_t column, int32_t o)
{
    int32_t inner = d->channels / d->groups, group = o / (d->out_channels / d->groups);
    int64_t y = (((int64_t)n * d->out_height + row) * d->out_width + column) * d->out_channels + o;
    for (int32_t kh = 0; kh < d->kernel; kh++)
        for (int32_t kw = 0; kw < d->kernel; kw++) {
            int32_t h = row * d->stride - d->pad + kh, width = column * d->stride - d->pad + kw;
            if (h < 0 || h >= d->height || width < 0 || width >= d->width)
                continue;
            int64_t x = (((int64_t)n * d->height + h) * d->width + width) * d->channels + (int64_t)group * inner;
            int64_t w = (((int64_t)o * d->kernel + kh) * d->kernel + kw) * inner;
            for (int32_t i = 0; i < inner; i++)
                add_tap(d, args, sums, x + i, w + i, y);
        }
}

static int64_t result_count(const cuda_convolution_desc *d)
{
    if (d->kind == CUDA_CONVOLUTION_FORWARD)
        return (int64_t)d->batch * d->out_height * d->out_width * d->out_channels;
    if (d->kind == CUDA_CONVOLUTION_DGRAD)
        return (int64_t)d->batch * d->height * d->width * d->channels;
    return (int64_t)d->out_channels * d->kernel * d->kernel * (d->channels / d->groups);
}

/* Of what was written, in its dtype. */
static void add_up_statistics(const cuda_convolution_desc *d, const cuda_convolution_args *args)
{
    for (int32_t o = 0; o < d->out_channels; o++) {
        double sum = 0, square_sum = 0;
        for (int64_t i = o; i < result_count(d); i += d->out_channels) {
            double y = plain_load(args->y, d->type, i);
            sum += y;
            square_sum += y * y;
        }
        args->sum[o] = (float)sum;
        args->square_sum[o] = (float)square_sum;
    }
}

static void convolve(const void *run)
{
    const cuda_convolution_desc *d = &((const convolution_run *)run)->desc;
    const cuda_convolution_args *args = &((const convolution_run *)run)->args;
    int64_t count = result_count(d);
    void *const result[] = {
        [CUDA_CONVOLUTION_FORWARD] = args->y, [CUDA_CONVOLUTION_DGRAD] = args->x, [CUDA_CONVOLUTION_WGRAD] = args->w};
    double *sums = calloc((size_t)count, sizeof *sums);
    if (!sums)
        abort();
    for (int32_t n = 0; n < d->batch; n++)
        for (int32_t row = 0; row < d->out_height; row++)
            for (int32_t column = 0; column < d->out_width; column++)
                for (int32_t o = 0; o < d->out_channels; o++)
                    add_taps(d, args, sums, n, row, column, o);
    for (int64_t i = 0; i < count; i++)
        plain_store(result[d->kind], d->type, i,
                    sums[i] + (d->bias ? plain_load(args->bias, d->type, i % d->out_channels) : 0));
    free(sums);
    if (d->statistics)
        add_up_statistics(d, args);
}

int cuda_convolution_run(const cuda_convolution *v, const cuda_convolution_args *args)
{
    const convolution_run run = {v->desc, *args};
    CHECK((args->bias != NULL) == v->desc.bias && args->workspace, ERROR_KERNEL, "a bias or workspace is missing");
    CHECK((args->sum && args->square_sum) == v->desc.statistics, ERROR_KERNEL, "memory for the sums is missing");
    return plain_submit(v->stream, convolve, &run, sizeof run);
}

void cuda_convolution_release(cuda_convolution *v)
{
    free(v);
}

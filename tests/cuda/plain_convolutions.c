/* Convolutions in plain C: one loop over the taps for all three kinds, in float64. */
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

/* x, w and y in float64; the result as sums, 0 at first. */
typedef struct {
    double *x, *w, *y;
} wide_arrays;

/* All taps of output channel `o` at one place of y. */
static void add_taps(const cuda_convolution_desc *d, wide_arrays t, int32_t n, int32_t row, int32_t column, int32_t o)
{
    int32_t inner = d->channels / d->groups, group = o / (d->out_channels / d->groups);
    double *y = t.y + (((int64_t)n * d->out_height + row) * d->out_width + column) * d->out_channels + o;
    for (int32_t kh = 0; kh < d->kernel; kh++)
        for (int32_t kw = 0; kw < d->kernel; kw++) {
            int32_t h = row * d->stride - d->pad + kh, width = column * d->stride - d->pad + kw;
            if (h < 0 || h >= d->height || width < 0 || width >= d->width)
                continue;
            double *x = t.x + (((int64_t)n * d->height + h) * d->width + width) * d->channels + (int64_t)group * inner;
            double *w = t.w + (((int64_t)o * d->kernel + kh) * d->kernel + kw) * inner;
            for (int32_t i = 0; i < inner && d->kind == CUDA_CONVOLUTION_FORWARD; i++)
                *y += x[i] * w[i];
            for (int32_t i = 0; i < inner && d->kind == CUDA_CONVOLUTION_DGRAD; i++)
                x[i] += *y * w[i];
            for (int32_t i = 0; i < inner && d->kind == CUDA_CONVOLUTION_WGRAD; i++)
                w[i] += x[i] * *y;
        }
}

static int64_t count_of(const cuda_convolution_desc *d, cuda_convolution_kind result)
{
    if (result == CUDA_CONVOLUTION_FORWARD)
        return (int64_t)d->batch * d->out_height * d->out_width * d->out_channels;
    if (result == CUDA_CONVOLUTION_DGRAD)
        return (int64_t)d->batch * d->height * d->width * d->channels;
    return (int64_t)d->out_channels * d->kernel * d->kernel * (d->channels / d->groups);
}

/* Of what was written, in its dtype. */
static void add_up_statistics(const cuda_convolution_desc *d, const cuda_convolution_args *args)
{
    for (int32_t o = 0; o < d->out_channels; o++) {
        double sum = 0, square_sum = 0;
        for (int64_t i = o; i < count_of(d, CUDA_CONVOLUTION_FORWARD); i += d->out_channels) {
            double y = plain_load(args->y, d->type, i);
            sum += y;
            square_sum += y * y;
        }
        args->sum[o] = (float)sum;
        args->square_sum[o] = (float)square_sum;
    }
}

/* An operand's values, or zeros for the array of that result. */
static double *operand(const cuda_convolution_desc *d, const void *array, cuda_convolution_kind result)
{
    int64_t count = count_of(d, result);
    double *wide = calloc((size_t)count, sizeof *wide);
    if (!wide)
        abort();
    for (int64_t i = 0; i < count && d->kind != result; i++)
        wide[i] = plain_load(array, d->type, i);
    return wide;
}

static void convolve(const void *run)
{
    const cuda_convolution_desc *d = &((const convolution_run *)run)->desc;
    const cuda_convolution_args *args = &((const convolution_run *)run)->args;
    const wide_arrays t = {operand(d, args->x, CUDA_CONVOLUTION_DGRAD), operand(d, args->w, CUDA_CONVOLUTION_WGRAD),
                           operand(d, args->y, CUDA_CONVOLUTION_FORWARD)};
    double *const sums[] = {
        [CUDA_CONVOLUTION_FORWARD] = t.y, [CUDA_CONVOLUTION_DGRAD] = t.x, [CUDA_CONVOLUTION_WGRAD] = t.w};
    void *const result[] = {
        [CUDA_CONVOLUTION_FORWARD] = args->y, [CUDA_CONVOLUTION_DGRAD] = args->x, [CUDA_CONVOLUTION_WGRAD] = args->w};
    for (int32_t n = 0; n < d->batch; n++)
        for (int32_t row = 0; row < d->out_height; row++)
            for (int32_t column = 0; column < d->out_width; column++)
                for (int32_t o = 0; o < d->out_channels; o++)
                    add_taps(d, t, n, row, column, o);
    for (int64_t i = 0; i < count_of(d, d->kind); i++)
        plain_store(result[d->kind], d->type, i,
                    sums[d->kind][i] + (d->bias ? plain_load(args->bias, d->type, i % d->out_channels) : 0));
    free(t.x);
    free(t.w);
    free(t.y);
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

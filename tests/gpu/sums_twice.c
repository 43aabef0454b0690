/* What a plan of cuDNN adds up is what it wrote, however often it runs on the same memory: sums are written, never
 * added to. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/sixteen_bit.h"
#include "kernels/cuda/library/cudnn_convolutions.h"
#include "graph/node.h"
#include "kernels/cuda/device/cuda_open.h"
#include "sums_twice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    backend *device;
    cuda_convolution_desc desc;
    bool tune;
} sums_test;

typedef struct {
    size_t x, w, y; /* elements */
    cuda_convolution_args args;
} sums_memory;

static void *filled(backend *device, const void *values, size_t bytes)
{
    void *memory = device->ops->alloc(device, bytes ? bytes : 1);
    if (!memory || device->ops->write(device, memory, values, bytes) < 0)
        fail_msg("%s", error_message());
    return memory;
}

static void *random_values(const sums_test *t, size_t count)
{
    uint16_t *values = malloc(count * sizeof *values);
    uint32_t state = 1;
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        float value = (float)(state >> 8) / 0x1p24F - 0.4F;
        values[i] = t->desc.type == DTYPE_F16 ? float16_from(value) : bfloat16_from(value);
    }
    void *memory = filled(t->device, values, count * sizeof *values);
    free(values);
    return memory;
}

/* Full of NaNs. */
static void *nothing_yet(const sums_test *t, size_t bytes)
{
    void *values = malloc(bytes ? bytes : 1);
    assert_non_null(values);
    memset(values, 0xff, bytes);
    void *memory = filled(t->device, values, bytes);
    free(values);
    return memory;
}

static sums_memory take_memory(const sums_test *t, size_t workspace)
{
    const cuda_convolution_desc *d = &t->desc;
    sums_memory m = {.x = (size_t)d->batch * (size_t)d->height * (size_t)d->width * (size_t)d->channels,
                     .w = (size_t)d->out_channels * (size_t)(d->kernel * d->kernel) * (size_t)d->channels,
                     .y = (size_t)d->batch * (size_t)d->out_height * (size_t)d->out_width * (size_t)d->out_channels};
    m.args = (cuda_convolution_args){.x = random_values(t, m.x),
                                     .w = random_values(t, m.w),
                                     .y = nothing_yet(t, m.y * sizeof(uint16_t)),
                                     .sum = nothing_yet(t, (size_t)d->out_channels * sizeof(float)),
                                     .square_sum = nothing_yet(t, (size_t)d->out_channels * sizeof(float)),
                                     .workspace = nothing_yet(t, workspace)};
    return m;
}

static void free_memory(backend *device, const sums_memory *m)
{
    void *const all[] = {m->args.x, m->args.w, m->args.y, m->args.sum, m->args.square_sum, m->args.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        device->ops->free(device, all[i]);
}

static void *read_back(backend *device, const void *memory, size_t bytes)
{
    void *values = malloc(bytes);
    assert_non_null(values);
    if (device->ops->read(device, values, memory, bytes) < 0)
        fail_msg("%s", error_message());
    return values;
}

static void expect_sums(const sums_test *t, const sums_memory *m)
{
    enum { BOUND = 1000 }; /* the reciprocal: y is rounded to 16 bits, before or after it is added up */
    size_t channels = (size_t)t->desc.out_channels;
    uint16_t *y = read_back(t->device, m->args.y, m->y * sizeof *y);
    float *sum = read_back(t->device, m->args.sum, channels * sizeof *sum),
          *square_sum = read_back(t->device, m->args.square_sum, channels * sizeof *square_sum);
    for (size_t c = 0; c < channels; c++) {
        double expected = 0, square = 0, size = 0;
        for (size_t i = c; i < m->y; i += channels) {
            double value = (double)(t->desc.type == DTYPE_F16 ? float16_value(y[i]) : bfloat16_value(y[i]));
            expected += value;
            size += fabs(value);
            square += value * value;
        }
        if (!(fabs((double)sum[c] - expected) <= size / BOUND) ||
            !(fabs((double)square_sum[c] - square) <= 8 * square / BOUND))
            fail_msg("channel %zu: sums %g and %g of what was written are said to be %g and %g", c, expected, square,
                     (double)sum[c], (double)square_sum[c]);
    }
    free(y);
    free(sum);
    free(square_sum);
}

static void run_twice(void **state)
{
    const sums_test *t = *state;
    cuda_convolutions *convolutions;
    cuda_convolution *convolution;
    size_t workspace = 0;
    cuda_timer timer = {.stream = cuda_backend_stream(t->device)};
    const cuda_convolutions_options options = {.stream = timer.stream, .timer = &timer, .tune = t->tune};
    if (cuda_convolutions_open(&convolutions, cuda_backend_libraries(t->device), &options) < 0)
        fail_msg("%s", error_message());
    if (cuda_convolution_prepare(convolutions, &t->desc, &convolution, &workspace) < 0) {
        print_message("%s\n", error_message());
        cuda_convolutions_close(convolutions);
        skip();
    }
    sums_memory m = take_memory(t, workspace);
    for (int i = 0; i < 2; i++)
        assert_int_equal(cuda_convolution_run(convolution, &m.args), 0);
    expect_sums(t, &m);
    free_memory(t->device, &m);
    cuda_convolution_release(convolution);
    cuda_convolutions_close(convolutions);
}

int check_sums_twice(backend *device, uint8_t type)
{
    static const struct {
        const char *name;
        int32_t batch, side, channels, out_channels, kernel, stride;
    } shapes[] = {{"3x3", 4, 32, 64, 64, 3, 1},
                  {"3x3 of stride 2", 4, 56, 64, 128, 3, 2},
                  {"1x1", 8, 14, 256, 64, 1, 1},
                  {"3x3 on a small map", 3, 7, 512, 512, 3, 1}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    sums_test all[2 * SHAPES];
    struct CMUnitTest tests[2 * SHAPES];
    for (int i = 0; i < 2 * SHAPES; i++) {
        int shape = i / 2;
        int32_t out = (shapes[shape].side - 1) / shapes[shape].stride + 1;
        all[i] = (sums_test){device,
                             {.kind = CUDA_CONVOLUTION_FORWARD,
                              .batch = shapes[shape].batch,
                              .height = shapes[shape].side,
                              .width = shapes[shape].side,
                              .channels = shapes[shape].channels,
                              .out_height = out,
                              .out_width = out,
                              .out_channels = shapes[shape].out_channels,
                              .kernel = shapes[shape].kernel,
                              .stride = shapes[shape].stride,
                              .pad = shapes[shape].kernel / 2,
                              .groups = 1,
                              .type = type,
                              .statistics = true},
                             i % 2 == 1};
        tests[i] = (struct CMUnitTest){.name = shapes[shape].name, .test_func = run_twice, .initial_state = &all[i]};
    }
    return _cmocka_run_group_tests("convolutions with sums", tests, 2 * SHAPES, NULL, NULL);
}

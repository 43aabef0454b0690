/* Owns the checks of skipped steps and of values that are not finite. Values live on the device and are read back after
 * each launch. */
#include "skip_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs the four above */
#include <cmocka.h>

#include "base/error.h"

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

enum { SLOT_BYTES = 1024, SLOTS = 8, WEIGHTS = 5 };

typedef struct {
    backend *b;
    char *memory; /* SLOTS of SLOT_BYTES */
} bench;

static void *slot(const bench *t, int index)
{
    return t->memory + (size_t)index * SLOT_BYTES;
}

static void put_double(const bench *t, int index, double value)
{
    MUST(t->b->ops->write(t->b, slot(t, index), &value, sizeof value));
}

static double get_double(const bench *t, int index)
{
    double value;
    MUST(t->b->ops->read(t->b, &value, slot(t, index), sizeof value));
    return value;
}

/* Reals of the backend. */
static void put_reals(const bench *t, int index, const double *values, int count)
{
    float narrow[16];
    bool wide = t->b->ops->real == DTYPE_F64;
    for (int i = 0; i < count; i++)
        narrow[i] = (float)values[i];
    MUST(t->b->ops->write(t->b, slot(t, index), wide ? (const void *)values : narrow,
                          (size_t)count * (wide ? sizeof *values : sizeof *narrow)));
}

static void get_reals(const bench *t, int index, double *values, int count)
{
    float narrow[16];
    bool wide = t->b->ops->real == DTYPE_F64;
    MUST(t->b->ops->read(t->b, wide ? (void *)values : narrow, slot(t, index),
                         (size_t)count * (wide ? sizeof *values : sizeof *narrow)));
    for (int i = 0; i < count && !wide; i++)
        values[i] = (double)narrow[i];
}

static tensor_desc vector(uint8_t type, int32_t size)
{
    return (tensor_desc){.dim = {1, 1, 1, size}, .dtype = type, .layout = LAYOUT_C, .kind = KIND_ACTIVATION};
}

static void launch(const bench *t, const kernel_request *r, const kernel_args *args)
{
    kernel *k = NULL;
    size_t bytes = 0;
    kernel_args with_workspace = *args;
    MUST(t->b->ops->prepare(t->b, r, &k, &bytes));
    with_workspace.workspace = t->b->ops->alloc(t->b, bytes + 1);
    MUST(t->b->ops->launch(t->b, k, &with_workspace));
    MUST(t->b->ops->synchronize(t->b));
    t->b->ops->free(t->b, with_workspace.workspace);
    t->b->ops->release(t->b, k);
}

/* Sum in slot 0, scaling in 1, factor in 2. */
static double scale_step(const bench *t, double sum, const double before[4], double after[4])
{
    uint8_t real = (uint8_t)t->b->ops->real;
    kernel_request r = {.node = {.op = OP_LOSS_SCALE, .n_in = 2, .n_out = 1}, .label = "test"};
    r.in[0] = r.out[0] = vector(DTYPE_F64, 1);
    r.in[1] = vector(real, 4);
    put_double(t, 0, sum);
    put_reals(t, 1, before, 4);
    launch(t, &r, &(kernel_args){.in = {slot(t, 0), slot(t, 1)}, .out = {slot(t, 2)}});
    get_reals(t, 1, after, 4);
    return get_double(t, 2);
}

static void check_scale(const bench *t)
{
    static const struct {
        double sum, before[4], after[4], factor;
    } steps[] = {
        {9, {1024, 7, 3, 0}, {1024, 8, 3, 0}, 1.0 / 1024},    {INFINITY, {1024, 7, 3, 0}, {512, 0, 4, 1}, NAN},
        {NAN, {1024, 0, 1, 1}, {512, 0, 2, 2}, NAN},          {INFINITY, {1, 7, 3, 0}, {1, 0, 4, 1}, NAN},
        {9, {1024, 1999, 3, 2}, {2048, 0, 3, 0}, 1.0 / 1024}, {9, {0x1p24, 1999, 3, 0}, {0x1p24, 0, 3, 0}, 0x1p-24},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        double after[4], factor = scale_step(t, steps[i].sum, steps[i].before, after);
        assert_memory_equal(after, steps[i].after, sizeof after);
        assert_true(isnan(steps[i].factor) ? isnan(factor) : factor == steps[i].factor);
    }
}

/* Weight, momentum, gradient, copy and EMA in slots 3 to 7, rate in 0, factor in 2. */
static void check_update(const bench *t, bool rate_first)
{
    static const double w[WEIGHTS] = {1, 2, -3, 4, 5}, v[WEIGHTS] = {1, 0, 0, -1, 2}, dw[WEIGHTS] = {NAN, INFINITY},
                        ema[WEIGHTS] = {9, 8, 7, 6, 5};
    uint8_t real = (uint8_t)t->b->ops->real, activation = (uint8_t)t->b->ops->activation;
    unsigned char pattern[WEIGHTS * sizeof(double)], copy[sizeof pattern];
    double after[WEIGHTS];
    kernel_request r = {
        .node =
            {.op = OP_SGD_UPDATE,
             .n_in = 7,
             .attr = {.momentum = 0.9, .weight_decay = 0.1, .ema_decay = 0.5, .decay = true, .rate_first = rate_first}},
        .label = "test"};
    r.in[0] = r.in[1] = r.in[2] = r.in[6] = vector(real, WEIGHTS);
    r.in[3] = r.in[4] = vector(DTYPE_F64, 1);
    r.in[5] = vector(activation, WEIGHTS);
    put_double(t, 0, 0.5);
    put_double(t, 2, NAN);
    put_reals(t, 3, w, WEIGHTS);
    put_reals(t, 4, v, WEIGHTS);
    put_reals(t, 5, dw, WEIGHTS);
    put_reals(t, 7, ema, WEIGHTS);
    memset(pattern, 0x5A, sizeof pattern);
    MUST(t->b->ops->write(t->b, slot(t, 6), pattern, sizeof pattern));
    launch(t, &r,
           &(kernel_args){.in = {slot(t, 3), slot(t, 4), slot(t, 5), slot(t, 0), slot(t, 2), slot(t, 6), slot(t, 7)}});
    get_reals(t, 3, after, WEIGHTS);
    assert_memory_equal(after, w, sizeof w);
    get_reals(t, 4, after, WEIGHTS);
    assert_memory_equal(after, v, sizeof v);
    get_reals(t, 7, after, WEIGHTS);
    assert_memory_equal(after, ema, sizeof ema);
    MUST(t->b->ops->read(t->b, copy, slot(t, 6), sizeof copy));
    assert_memory_equal(copy, pattern, sizeof pattern);
}

void check_skipped_steps(backend *b)
{
    bench t = {b, b->ops->alloc(b, (size_t)SLOTS * SLOT_BYTES)};
    assert_non_null(t.memory);
    check_scale(&t);
    check_update(&t, false);
    check_update(&t, true);
    b->ops->free(b, t.memory);
}

/* Sum in slot 0, factor in 1. */
static void check_clip(const bench *t)
{
    static const double sums[] = {INFINITY, NAN};
    kernel_request r = {.node = {.op = OP_CLIP_FACTOR, .n_in = 1, .n_out = 1, .attr = {.max_norm = 2}},
                        .label = "test"};
    r.in[0] = r.out[0] = vector(DTYPE_F64, 1);
    for (int i = 0; i < 2; i++) {
        put_double(t, 0, sums[i]);
        launch(t, &r, &(kernel_args){.in = {slot(t, 0)}, .out = {slot(t, 1)}});
        assert_true(isnan(get_double(t, 1)));
    }
}

/* What is looked at in slot 0, counts in 1. */
static void check_watch(const bench *t)
{
    enum { COUNTS = 3, WATCHED = 1 };
    static const double looked_at[] = {-7, INFINITY, 1e300, NAN, -INFINITY}, before[COUNTS] = {10, 20, 30};
    double after[COUNTS];
    kernel_request r = {.node = {.op = OP_METRIC_WATCH, .n_in = 2, .attr = {.channel_offset = WATCHED}},
                        .label = "test"};
    r.in[0] = vector(DTYPE_F64, 1);
    r.in[1] = vector(DTYPE_F64, COUNTS);
    MUST(t->b->ops->write(t->b, slot(t, 1), before, sizeof before));
    for (size_t i = 0; i < sizeof looked_at / sizeof *looked_at; i++) {
        put_double(t, 0, looked_at[i]);
        launch(t, &r, &(kernel_args){.in = {slot(t, 0), slot(t, 1)}});
    }
    MUST(t->b->ops->read(t->b, after, slot(t, 1), sizeof after));
    assert_true(after[0] == before[0] && after[WATCHED] == before[WATCHED] + 3 && after[2] == before[2]);
}

/* Sums in slot 0, mean and variance in 1 and 2; of four channels only the last has sums. */
static void check_running(const bench *t, double count, double mean, double variance)
{
    static const double sums[8] = {INFINITY, 1, NAN, 8, 1, INFINITY, 1, 64}, before[4] = {1, 2, 3, 4};
    double after[4];
    kernel_request r = {.node = {.op = OP_BN_RUNNING, .n_in = 3, .attr = {.count = count, .momentum = 0.5}},
                        .label = "test"};
    r.in[0] = (tensor_desc){.dim = {1, 1, 2, 4}, .dtype = DTYPE_F64, .layout = LAYOUT_C, .kind = KIND_ACTIVATION};
    r.in[1] = r.in[2] = vector((uint8_t)t->b->ops->real, 4);
    MUST(t->b->ops->write(t->b, slot(t, 0), sums, sizeof sums));
    put_reals(t, 1, before, 4);
    put_reals(t, 2, before, 4);
    launch(t, &r, &(kernel_args){.in = {slot(t, 0), slot(t, 1), slot(t, 2)}});
    get_reals(t, 1, after, 4);
    assert_memory_equal(after, before, 3 * sizeof *after);
    assert_true(after[3] == mean);
    get_reals(t, 2, after, 4);
    assert_memory_equal(after, before, 3 * sizeof *after);
    assert_true(after[3] == variance);
}

enum { POOLED_CHANNELS = 8, NAN_CHANNEL = 3, NAN_PLACE = 5 }; /* of the 4x4 feature map */

static bool is_set(const unsigned char *element, size_t bytes)
{
    static const unsigned char zeros[sizeof(double)];
    return memcmp(element, zeros, bytes) != 0;
}

/* Feature map, result, and the gradients of both in slots 0 to 3. Elements are 0, or a NaN: all bits set. */
static void check_pool(const bench *t)
{
    uint8_t type = (uint8_t)t->b->ops->activation;
    size_t bytes = dtype_bytes(type);
    unsigned char map[SLOT_BYTES] = {0}, pooled[SLOT_BYTES];
    kernel_request r = {
        .node = {.op = OP_MAX_POOL, .n_in = 1, .n_out = 1, .attr = {.kernel = 3, .stride = 2, .pad = 1}},
        .label = "test"};
    r.in[0] = (tensor_desc){.dim = {1, 4, 4, POOLED_CHANNELS}, .dtype = type, .kind = KIND_ACTIVATION};
    r.out[0] = (tensor_desc){.dim = {1, 2, 2, POOLED_CHANNELS}, .dtype = type, .kind = KIND_ACTIVATION};
    memset(map + (NAN_PLACE * POOLED_CHANNELS + NAN_CHANNEL) * bytes, 0xFF, bytes);
    MUST(t->b->ops->write(t->b, slot(t, 0), map, sizeof map));
    launch(t, &r, &(kernel_args){.in = {slot(t, 0)}, .out = {slot(t, 1)}});
    MUST(t->b->ops->read(t->b, pooled, slot(t, 1), sizeof pooled));
    for (size_t i = 0; i < 4 * POOLED_CHANNELS; i++)
        assert_int_equal(is_set(pooled + i * bytes, bytes), i % POOLED_CHANNELS == NAN_CHANNEL);

    tensor_desc swap = r.in[0];
    r.node.op = OP_MAX_POOL_GRAD;
    r.node.n_in = 2;
    r.in[1] = r.out[0];
    r.out[0] = swap;
    memset(pooled, 0xFF, sizeof pooled);
    MUST(t->b->ops->write(t->b, slot(t, 2), pooled, sizeof pooled));
    launch(t, &r, &(kernel_args){.in = {slot(t, 0), slot(t, 2)}, .out = {slot(t, 3)}});
    MUST(t->b->ops->read(t->b, map, slot(t, 3), sizeof map));
    for (size_t place = 0; place < 16; place++)
        assert_int_equal(is_set(map + (place * POOLED_CHANNELS + NAN_CHANNEL) * bytes, bytes), place == NAN_PLACE);
}

void check_not_finite(backend *b)
{
    bench t = {b, b->ops->alloc(b, (size_t)SLOTS * SLOT_BYTES)};
    assert_non_null(t.memory);
    check_clip(&t);
    check_watch(&t);
    check_running(&t, 4, 3, 10);
    check_running(&t, 1, 6, 2);
    check_pool(&t);
    b->ops->free(b, t.memory);
}

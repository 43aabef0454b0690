/* Batched nodes on the emulated device: bit for bit what the separate launches give, from one tensor of one element to
 * tensors of several chunks; and what is not alike is not batched. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/sixteen_bit.h"
#include "emulated_backend.h"
#include "op_check.h"

enum { TENSORS = 7, SUMS = 20 };

static const int32_t sizes[TENSORS] = {1, 64, 3, 5000, 4096, 12345, 17};

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

static void put_value(void *array, int64_t index, dtype type, double value)
{
    if (type == DTYPE_F64)
        ((double *)array)[index] = value;
    else if (type == DTYPE_F32)
        ((float *)array)[index] = (float)value;
    else
        ((uint16_t *)array)[index] = type == DTYPE_F16 ? float16_from((float)value) : bfloat16_from((float)value);
}

/* Device memory with known random contents. */
static void *filled(backend *b, int64_t count, dtype type, uint64_t seed)
{
    double *values = test_alloc((size_t)count * sizeof *values);
    size_t bytes = (size_t)count * dtype_bytes(type);
    void *narrow = test_alloc(bytes);
    fill_random(values, count, seed);
    for (int64_t i = 0; i < count; i++)
        put_value(narrow, i, type, values[i]);
    void *memory = b->ops->alloc(b, bytes);
    assert_non_null(memory);
    MUST(b->ops->write(b, memory, narrow, bytes));
    free(values);
    free(narrow);
    return memory;
}

static void assert_same(backend *b, const void *one, const void *other, size_t bytes)
{
    char *x = test_alloc(bytes), *y = test_alloc(bytes);
    MUST(b->ops->read(b, x, one, bytes));
    MUST(b->ops->read(b, y, other, bytes));
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
}

static tensor_desc vector(dtype type, int32_t size)
{
    return (tensor_desc){.dim = {1, 1, 1, size}, .dtype = (uint8_t)type, .layout = LAYOUT_C, .kind = KIND_PARAMETER};
}

typedef struct {
    backend *b;
    kernel_request requests[TENSORS];
    kernel *kernels[TENSORS];
    kernel_args args[2][TENSORS]; /* for the batched launch, and the same contents for the separate ones */
    void *memory[128];
    int n_memory;
} nodes;

/* The same contents twice. */
static void operand(nodes *t, int node, int input, dtype type, int32_t count)
{
    t->requests[node].in[input] = vector(type, count);
    for (int copy = 0; copy < 2; copy++) {
        void *memory = filled(t->b, count, type, (uint64_t)(node * 16 + input + 1));
        t->args[copy][node].in[input] = t->memory[t->n_memory++] = memory;
    }
}

/* An operand of the first node for all of them. */
static void share(nodes *t, int node, int input)
{
    t->requests[node].in[input] = t->requests[0].in[input];
    for (int copy = 0; copy < 2; copy++)
        t->args[copy][node].in[input] = t->args[copy][0].in[input];
}

static void begin(nodes *t, dtype activation)
{
    cuda_backend *device;
    *t = (nodes){0};
    MUST(emulated_backend_open(&device, activation, 3));
    t->b = &device->base;
}

static void end(nodes *t)
{
    for (int i = 0; i < TENSORS; i++)
        if (t->kernels[i])
            t->b->ops->release(t->b, t->kernels[i]);
    for (int i = 0; i < t->n_memory; i++)
        t->b->ops->free(t->b, t->memory[i]);
    t->b->ops->close(t->b);
}

/* For the separate launches. */
static void give_workspace(nodes *t, size_t bytes)
{
    void *memory = t->b->ops->alloc(t->b, bytes);
    assert_non_null(memory);
    t->memory[t->n_memory++] = memory;
    for (int i = 0; i < TENSORS; i++)
        t->args[1][i].workspace = memory;
}

static void prepare(nodes *t, unsigned op, int n_in)
{
    size_t workspace = 1;
    for (int i = 0; i < TENSORS; i++) {
        size_t bytes = 0;
        t->requests[i].node.op = (uint16_t)op;
        t->requests[i].node.n_in = (uint8_t)n_in;
        t->requests[i].label = "test";
        MUST(t->b->ops->prepare(t->b, &t->requests[i], &t->kernels[i], &bytes));
        workspace = bytes > workspace ? bytes : workspace;
    }
    give_workspace(t, workspace);
}

static void run_both(nodes *t)
{
    kernel *batched = NULL;
    MUST(t->b->ops->batch_launches(t->b, TENSORS, t->kernels, t->args[0], &batched));
    assert_non_null(batched);
    MUST(t->b->ops->launch(t->b, batched, NULL));
    for (int i = 0; i < TENSORS; i++)
        MUST(t->b->ops->launch(t->b, t->kernels[i], &t->args[1][i]));
    MUST(t->b->ops->synchronize(t->b));
    t->b->ops->release(t->b, batched);
}

static void compare(nodes *t, int input)
{
    for (int i = 0; i < TENSORS; i++)
        if (t->args[0][i].in[input])
            assert_same(t->b, t->args[0][i].in[input], t->args[1][i].in[input],
                        tensor_bytes(&t->requests[i].in[input]));
}

static void set_up_sgd(nodes *t, dtype activation, bool rate_first)
{
    begin(t, activation);
    for (int i = 0; i < TENSORS; i++) {
        t->requests[i].node.attr = (op_attr){.momentum = 0.9,
                                             .weight_decay = 0.1,
                                             .decay = i % 2 == 0,
                                             .nesterov = true,
                                             .ema_decay = 0.75,
                                             .rate_first = rate_first};
        for (int input = 0; input < 3; input++)
            operand(t, i, input, DTYPE_F32, sizes[i]);
        if (i == 0) {
            operand(t, 0, 3, DTYPE_F64, 1);
            operand(t, 0, 4, DTYPE_F64, 1);
        }
        if (i % 3 == 1 && rate_first)
            operand(t, i, 3, DTYPE_F64, 1);
        else
            share(t, i, 3);
        share(t, i, 4);
        if (activation != DTYPE_F32 && i % 3 != 1) /* not every tensor has a copy */
            operand(t, i, 5, activation, sizes[i]);
        if (i % 4 != 2) /* nor an EMA */
            operand(t, i, 6, DTYPE_F32, sizes[i]);
    }
    prepare(t, OP_SGD_UPDATE, 7);
}

static void sgd_updates(void **state)
{
    (void)state;
    static const dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const int changed[] = {0, 1, 5, 6};
    for (int k = 0; k < 6; k++) {
        nodes t;
        set_up_sgd(&t, types[k / 2], k % 2 == 1);
        run_both(&t);
        for (int i = 0; i < 4; i++)
            compare(&t, changed[i]);
        end(&t);
    }
}

static void updates_that_differ_stay_apart(void **state)
{
    (void)state;
    nodes t;
    kernel *batched = NULL;
    set_up_sgd(&t, DTYPE_F32, false);
    t.args[0][3].in[4] = t.args[1][0].in[4]; /* another factor */
    MUST(t.b->ops->batch_launches(t.b, TENSORS, t.kernels, t.args[0], &batched));
    assert_null(batched);
    end(&t);
}

static void sgd_of_two_rates_stays_apart(void **state)
{
    (void)state;
    nodes t;
    kernel *batched = NULL;
    set_up_sgd(&t, DTYPE_F32, false);
    t.args[0][3].in[3] = t.args[1][0].in[3];
    MUST(t.b->ops->batch_launches(t.b, TENSORS, t.kernels, t.args[0], &batched));
    assert_null(batched);
    end(&t);
}

static void ema_updates(void **state)
{
    (void)state;
    nodes t;
    begin(&t, DTYPE_F16);
    for (int i = 0; i < TENSORS; i++) {
        t.requests[i].node.attr.momentum = 0.99;
        operand(&t, i, 0, DTYPE_F32, sizes[i]);
        operand(&t, i, 1, DTYPE_F32, sizes[i]);
    }
    prepare(&t, OP_EMA_UPDATE, 2);
    run_both(&t);
    compare(&t, 1);
    end(&t);
}

static void running_statistics(void **state)
{
    (void)state;
    nodes t;
    begin(&t, DTYPE_F16);
    for (int i = 0; i < TENSORS; i++) {
        t.requests[i].node.attr = (op_attr){.count = 100 + i, .momentum = 0.1 + 0.01 * i};
        operand(&t, i, 0, DTYPE_F64, 2 * sizes[i]);
        operand(&t, i, 1, DTYPE_F32, sizes[i]);
        operand(&t, i, 2, DTYPE_F32, sizes[i]);
    }
    prepare(&t, OP_BN_RUNNING, 3);
    run_both(&t);
    compare(&t, 1);
    compare(&t, 2);
    end(&t);
}

/* ---- losses: nodes of several ops ---- */

static const unsigned losses[TENSORS] = {OP_CROSS_ENTROPY,     OP_TOP_K,        OP_KD_LOSS,           OP_FEATURE_LOSS,
                                         OP_FEATURE_LOSS_GRAD, OP_KD_LOSS_GRAD, OP_CROSS_ENTROPY_GRAD};

static tensor_desc rows_of(dtype type, int32_t images, int32_t columns)
{
    return (tensor_desc){.dim = {images, 1, 1, columns}, .dtype = (uint8_t)type, .kind = KIND_ACTIVATION};
}

/* An output for both ways of launching. */
static void result(nodes *t, int node, int output, tensor_desc desc)
{
    t->requests[node].out[output] = desc;
    for (int copy = 0; copy < 2; copy++) {
        void *memory = t->b->ops->alloc(t->b, tensor_bytes(&desc));
        assert_non_null(memory);
        MUST(t->b->ops->zero(t->b, memory, tensor_bytes(&desc)));
        t->args[copy][node].out[output] = t->memory[t->n_memory++] = memory;
    }
}

/* One memory for both ways. */
static void *classes_of(nodes *t, const int32_t *target, int32_t images)
{
    size_t bytes = (size_t)images * sizeof *target;
    void *memory = t->b->ops->alloc(t->b, bytes);
    assert_non_null(memory);
    MUST(t->b->ops->write(t->b, memory, target, bytes));
    return t->memory[t->n_memory++] = memory;
}

typedef struct {
    dtype type;
    int32_t images, columns;
    bool out_of_range; /* a class below and one above the columns */
    bool with_teacher; /* does kd_loss_grad give the teacher's gradient? */
} losses_case;

static void *targets(nodes *t, const losses_case *c, int32_t images)
{
    int32_t *target = test_alloc((size_t)images * sizeof *target);
    for (int32_t i = 0; i < images; i++)
        target[i] = i * 7 % c->columns;
    if (c->out_of_range) {
        target[0] = -1;
        target[images - 1] = c->columns;
    }
    void *memory = classes_of(t, target, images);
    free(target);
    return memory;
}

static bool is_gradient(unsigned op)
{
    return op == OP_KD_LOSS_GRAD || op == OP_CROSS_ENTROPY_GRAD || op == OP_FEATURE_LOSS_GRAD;
}

static bool has_classes(unsigned op)
{
    return op == OP_CROSS_ENTROPY || op == OP_CROSS_ENTROPY_GRAD || op == OP_TOP_K;
}

static void set_up_loss(nodes *t, int i, const losses_case *c)
{
    unsigned op = losses[i];
    bool gradient = is_gradient(op);
    int32_t images = i == 3 ? c->images + 5 : c->images; /* not all have as many */
    tensor_desc rows = rows_of(c->type, images, c->columns);
    t->requests[i].label = "test";
    t->requests[i].node =
        (graph_node){.op = (uint16_t)op,
                     .n_in = gradient ? 3 : 2,
                     .attr = {.count = images, .weight = 0.7, .temperature = 4, .smoothing = i % 2 == 0 ? 0.1 : 0}};
    operand(t, i, 0, c->type, images * c->columns);
    if (has_classes(op)) {
        t->args[0][i].in[1] = t->args[1][i].in[1] = targets(t, c, images);
        t->requests[i].in[1] = rows_of(DTYPE_I32, images, 1);
    } else {
        operand(t, i, 1, c->type, images * c->columns);
        t->requests[i].in[1] = rows;
    }
    t->requests[i].in[0] = rows;
    if (gradient && c->type == DTYPE_F16)
        operand(t, i, 2, DTYPE_F32, 4);
    result(t, i, 0, gradient ? rows : vector(DTYPE_F64, op == OP_TOP_K ? 2 : 1));
    if (op == OP_KD_LOSS_GRAD && c->with_teacher)
        result(t, i, 1, rows);
}

static void begin_losses(nodes *t, const losses_case *c)
{
    size_t workspace = 0;
    begin(t, c->type);
    for (int i = 0; i < TENSORS; i++) {
        size_t bytes = 0;
        set_up_loss(t, i, c);
        MUST(t->b->ops->prepare(t->b, &t->requests[i], &t->kernels[i], &bytes));
        workspace = bytes > workspace ? bytes : workspace;
    }
    give_workspace(t, workspace);
}

/* Makes what a launch that leaves something out would leave behind visible. */
static void clear_results(nodes *t, int copy)
{
    for (int i = 0; i < TENSORS; i++)
        for (int k = 0; k < 2; k++)
            if (t->args[copy][i].out[k])
                MUST(t->b->ops->zero(t->b, t->args[copy][i].out[k], tensor_bytes(&t->requests[i].out[k])));
}

static void compare_results(nodes *t, int first, int past)
{
    for (int i = first; i < past; i++)
        for (int k = 0; k < 2; k++)
            if (t->args[0][i].out[k])
                assert_same(t->b, t->args[0][i].out[k], t->args[1][i].out[k], tensor_bytes(&t->requests[i].out[k]));
}

static double sum_of(nodes *t, int node)
{
    double sum;
    MUST(t->b->ops->read(t->b, &sum, t->args[0][node].out[0], sizeof sum));
    return sum;
}

/* Joins nodes [first, past), launches them several times. */
static void check_losses(const losses_case *c, int first, int past)
{
    nodes t;
    kernel *batched = NULL;
    begin_losses(&t, c);
    for (int i = first; i < past; i++)
        MUST(t.b->ops->launch(t.b, t.kernels[i], &t.args[1][i]));
    MUST(t.b->ops->batch_launches(t.b, (uint32_t)(past - first), t.kernels + first, t.args[0] + first, &batched));
    assert_non_null(batched);
    for (int run = 0; run < 3; run++) {
        clear_results(&t, 0);
        MUST(t.b->ops->launch(t.b, batched, NULL));
        compare_results(&t, first, past);
    }
    for (int i = first; i < past; i++)
        if (!is_gradient(losses[i])) /* the comparisons above are of numbers, but for a class out of range */
            assert_int_equal(isnan(sum_of(&t, i)), losses[i] == OP_CROSS_ENTROPY && c->out_of_range);
    t.b->ops->release(t.b, batched);
    end(&t);
}

static void losses_and_gradients(void **state)
{
    (void)state;
    static const dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        check_losses(&(losses_case){types[i], 1, 1, false, false}, 0, TENSORS);
        check_losses(&(losses_case){types[i], 7, 17, false, true}, 0, TENSORS);
        check_losses(&(losses_case){types[i], 7, 17, true, false}, 0, TENSORS);
        check_losses(&(losses_case){types[i], 301, 11, false, true}, 0, TENSORS);
        check_losses(&(losses_case){types[i], 3, 1001, true, true}, 0, TENSORS);
    }
}

/* The last three have no values to add up. */
static void gradients_alone(void **state)
{
    (void)state;
    check_losses(&(losses_case){DTYPE_F16, 7, 17, false, true}, 4, TENSORS);
}

static void losses_of_two_types_stay_apart(void **state)
{
    (void)state;
    nodes t;
    kernel *batched = NULL;
    begin_losses(&t, &(losses_case){DTYPE_F16, 4, 8, false, true});
    t.b->ops->release(t.b, t.kernels[5]);
    t.requests[5].in[0].dtype = t.requests[5].in[1].dtype = t.requests[5].out[0].dtype = DTYPE_F32;
    MUST(t.b->ops->prepare(t.b, &t.requests[5], &t.kernels[5], &(size_t){0}));
    MUST(t.b->ops->batch_launches(t.b, TENSORS, t.kernels, t.args[0], &batched));
    assert_null(batched);
    end(&t);
}

/* Several nodes add to one sum, and the order matters. */
static void metrics(void **state)
{
    (void)state;
    nodes t;
    begin(&t, DTYPE_F16);
    for (int i = 0; i < TENSORS; i++) {
        t.requests[i].node.attr = (op_attr){.channel_offset = i * 3 % 7, .weight = 0.3 + i};
        operand(&t, i, 0, DTYPE_F64, 1 + i % 2);
        if (i == 0)
            operand(&t, 0, 1, DTYPE_F64, SUMS);
        share(&t, i, 1);
    }
    prepare(&t, OP_METRIC_ADD, 2);
    run_both(&t);
    compare(&t, 1);
    end(&t);
}

/* Clipped and not, since a factor is each node's own; weights of zeros have the global rate. */
static void lars_rates(void **state)
{
    (void)state;
    nodes t;
    begin(&t, DTYPE_F16);
    for (int i = 0; i < TENSORS; i++) {
        t.requests[i].node.attr = (op_attr){.eta = 0.01 + i, .weight_decay = i % 2 * 0.1};
        operand(&t, i, 0, DTYPE_F32, sizes[i]);
        operand(&t, i, 1, DTYPE_F32, sizes[i]);
        operand(&t, i, 2, DTYPE_F64, 1);
        if (i % 3 != 0)
            operand(&t, i, 3, DTYPE_F64, 1);
        result(&t, i, 0, vector(DTYPE_F64, 1));
    }
    size_t last = (size_t)sizes[TENSORS - 1] * sizeof(float);
    MUST(t.b->ops->zero(t.b, kernel_in_out(&t.args[0][TENSORS - 1], 0), last));
    MUST(t.b->ops->zero(t.b, kernel_in_out(&t.args[1][TENSORS - 1], 0), last));
    prepare(&t, OP_LARS_RATE, 4);
    run_both(&t);
    for (int i = 0; i < TENSORS; i++)
        assert_same(t.b, t.args[0][i].out[0], t.args[1][i].out[0], sizeof(double));
    assert_same(t.b, t.args[0][TENSORS - 1].out[0], t.args[0][TENSORS - 1].in[2], sizeof(double));
    end(&t);
}

/* The batched sum has an order of its own, the same in every run; it is right to rounding. */
static void sums_of_squares(void **state)
{
    (void)state;
    nodes t;
    kernel *batched = NULL;
    double expected = 0, got[2];
    begin(&t, DTYPE_F16);
    double *sums = t.b->ops->alloc(t.b, (TENSORS + 1) * sizeof *sums);
    for (int i = 0; i < TENSORS; i++) {
        operand(&t, i, 0, DTYPE_F32, sizes[i]);
        t.requests[i].in[1] = t.requests[i].out[0] = vector(DTYPE_F64, 1);
        t.args[0][i].in[1] = i ? sums + i - 1 : NULL;
        t.args[0][i].out[0] = sums + i;
    }
    prepare(&t, OP_SUM_SQUARES, 2);
    for (int i = 0; i < TENSORS; i++) {
        float *values = test_alloc((size_t)sizes[i] * sizeof *values);
        MUST(t.b->ops->read(t.b, values, t.args[0][i].in[0], (size_t)sizes[i] * sizeof *values));
        for (int32_t k = 0; k < sizes[i]; k++)
            expected += (double)values[k] * (double)values[k];
        free(values);
    }
    MUST(t.b->ops->batch_launches(t.b, TENSORS, t.kernels, t.args[0], &batched));
    assert_non_null(batched);
    for (int run = 0; run < 2; run++) {
        MUST(t.b->ops->launch(t.b, batched, NULL));
        MUST(t.b->ops->read(t.b, &got[run], sums + TENSORS - 1, sizeof got[run]));
    }
    assert_true(got[0] == got[1]);
    assert_true(got[0] > expected * (1 - 1e-6) && got[0] < expected * (1 + 1e-6));
    t.b->ops->release(t.b, batched);
    t.b->ops->free(t.b, sums);
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_updates),
        cmocka_unit_test(updates_that_differ_stay_apart),
        cmocka_unit_test(sgd_of_two_rates_stays_apart),
        cmocka_unit_test(lars_rates),
        cmocka_unit_test(ema_updates),
        cmocka_unit_test(metrics),
        cmocka_unit_test(sums_of_squares),
        cmocka_unit_test(running_statistics),
        cmocka_unit_test(losses_and_gradients),
        cmocka_unit_test(gradients_alone),
        cmocka_unit_test(losses_of_two_types_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

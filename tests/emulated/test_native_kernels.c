/* Every native kernel of the CUDA backend on the emulated device, against the float64 reference, between sentinels, in
 * each dtype; and what the list of layers leaves out: column sums over many rows, conversions, classes out of range. */
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
#include "plain_device.h"
#include "skip_check.h"

/* Products and convolutions are the libraries': test_lowering has those. */
static bool is_native(unsigned op)
{
    return !op_has(op, TRAIT_PRODUCT);
}

static cuda_backend *open_backend(dtype real, int multiprocessors)
{
    cuda_backend *b = NULL;
    if (emulated_backend_open(&b, real, multiprocessors) < 0)
        fail_msg("%s", error_message());
    return b;
}

static void check_type(dtype real, double bound)
{
    backend *reference = NULL;
    if (backend_reference_open(&reference, 1) < 0)
        fail_msg("%s", error_message());
    cuda_backend *tested = open_backend(real, 1);
    op_check_some(&tested->base, reference, bound, is_native);
    tested->base.ops->close(&tested->base);
    reference->ops->close(reference);
}

static void float32(void **state)
{
    (void)state;
    check_type(DTYPE_F32, 1e-5);
}

static void float16(void **state)
{
    (void)state;
    check_type(DTYPE_F16, 2e-3);
}

static void bfloat16(void **state)
{
    (void)state;
    check_type(DTYPE_BF16, 1e-2);
}

static bool is_linear_bn(unsigned op)
{
    return op == OP_CHANNEL_MOMENTS || op == OP_LINEAR_BN || op == OP_LINEAR_BN_DGRAD;
}

static const double bounds[] = {[DTYPE_F32] = 1e-5, [DTYPE_F16] = 2e-3, [DTYPE_BF16] = 1e-2};

/* Opens a backend of each dtype and the reference, and has them checked. */
static void in_each_type(int multiprocessors, void check(cuda_backend *tested, backend *reference, double bound))
{
    static const dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    backend *reference = NULL;
    assert_int_equal(backend_reference_open(&reference, 1), 0);
    for (int i = 0; i < 3; i++) {
        cuda_backend *tested = open_backend(types[i], multiprocessors);
        check(tested, reference, bounds[types[i]]);
        tested->base.ops->close(&tested->base);
    }
    reference->ops->close(reference);
}

/* What products cannot do on the way, native kernels do. */
static void check_without_extras(cuda_backend *tested, backend *reference, double bound)
{
    tested->products->extras = false;
    op_check_some(&tested->base, reference, bound, is_linear_bn);
}

static void products_without_extras(void **state)
{
    (void)state;
    in_each_type(1, check_without_extras);
}

static void check_patches(cuda_backend *tested, backend *reference, double bound)
{
    assert_true(op_check_patches(&tested->base, reference, bound) >= 20);
}

static void maps_in_patches(void **state)
{
    (void)state;
    in_each_type(2, check_patches);
}

/* Pools with their choices, and gradients of parameters with their sums. */
static void check_further_results(cuda_backend *tested, backend *reference, double bound)
{
    assert_int_equal(op_check_fused(&tested->base, reference, OP_MAX_POOL, bound), 9);
    assert_int_equal(op_check_fused(&tested->base, reference, OP_MAX_POOL_GRAD, bound), 9);
    assert_true(op_check_fused(&tested->base, reference, OP_BN_GRAD_SUMS, bound) >= 9);
    assert_true(op_check_fused(&tested->base, reference, OP_UPSAMPLE_BN_GRAD_SUMS, bound) >= 5);
    assert_true(op_check_fused(&tested->base, reference, OP_LINEAR_BN_GRAD_SUMS, bound) >= 5);
}

static void further_results(void **state)
{
    (void)state;
    in_each_type(1, check_further_results);
}

/* In one, apart, and by measuring on this device. */
static void convolutions_with_sums(void **state)
{
    static const cuda_sums_way ways[] = {CUDA_SUMS_FUSED, CUDA_SUMS_APART, CUDA_SUMS_UNKNOWN};
    (void)state;
    backend *reference = NULL;
    assert_int_equal(backend_reference_open(&reference, 1), 0);
    for (int i = 0; i < 3; i++) {
        cuda_backend *tested = open_backend(DTYPE_F16, 1);
        tested->convolutions->sums = ways[i];
        assert_true(op_check_fused(&tested->base, reference, OP_CONV2D, 2e-3) >= 10);
        assert_true(op_check_fused(&tested->base, reference, OP_CONCAT_LINEAR, 2e-3) >= 3);
        assert_int_not_equal(tested->convolutions->sums, CUDA_SUMS_UNKNOWN);
        tested->base.ops->close(&tested->base);
    }
    reference->ops->close(reference);
}

/* A product of operands that lie side by side is measured on memory where they do. */
static void products_with_sums_side_by_side(void **state)
{
    (void)state;
    enum { A = 16, B = 8, OUT = 13 };
    const tensor_desc a = {{2, 3, 5, A}, DTYPE_F16, LAYOUT_NHWC, KIND_ACTIVATION, .row_stride = A + B};
    const tensor_desc b = {{2, 3, 5, B}, DTYPE_F16, LAYOUT_NHWC, KIND_ACTIVATION, .row_stride = A + B};
    const kernel_request r = {.node = {.op = OP_CONCAT_LINEAR, .n_in = 3, .n_out = 2},
                              .in = {a, b, {{OUT, 1, 1, A + B}, DTYPE_F16, LAYOUT_OI, KIND_ACTIVATION}},
                              .out = {{{2, 3, 5, OUT}, DTYPE_F16, LAYOUT_NHWC, KIND_ACTIVATION},
                                      {{1, 1, 2, OUT}, DTYPE_F64, LAYOUT_C, KIND_ACTIVATION}},
                              .label = "test"};
    cuda_backend *tested = open_backend(DTYPE_F16, 1);
    kernel *k = NULL;
    size_t bytes = 0;
    tested->convolutions->sums = CUDA_SUMS_UNKNOWN;
    if (tested->base.ops->prepare(&tested->base, &r, &k, &bytes) < 0)
        fail_msg("%s", error_message());
    assert_int_not_equal(tested->convolutions->sums, CUDA_SUMS_UNKNOWN);
    tested->base.ops->release(&tested->base, k);
    tested->base.ops->close(&tested->base);
}

static uint16_t bits_of(float x, dtype type)
{
    return type == DTYPE_F16 ? float16_from(x) : bfloat16_from(x);
}

/* Small whole numbers: every sum is exact whatever its order, so the kernel must give it exactly. */
static void check_column_sums(dtype type, int rows, int columns)
{
    cuda_backend *b = open_backend(type, 3);
    int64_t count = (int64_t)rows * columns;
    size_t bytes = cuda_column_sums_bytes(rows, columns);
    float *x = test_alloc((size_t)count * sizeof *x), *sums = test_alloc((size_t)columns * sizeof *sums);
    double *expected = test_alloc((size_t)columns * sizeof *expected);
    void *workspace = b->base.ops->alloc(&b->base, bytes), *memory = b->base.ops->alloc(&b->base, (size_t)count * 4);
    void *values = test_alloc((size_t)count * 4);
    for (int64_t i = 0; i < count; i++) {
        x[i] = (float)((i * 7919 + 13) % 17 - 5);
        expected[i % columns] += (double)x[i];
        if (type == DTYPE_F32)
            ((float *)values)[i] = x[i];
        else
            ((uint16_t *)values)[i] = bits_of(x[i], type);
    }
    assert_int_equal(b->base.ops->write(&b->base, memory, values, (size_t)count * 4), 0);
    assert_int_equal(cuda_column_sums(b, memory, (uint8_t)type, rows, columns, sums, workspace), 0);
    for (int c = 0; c < columns; c++)
        if ((double)sums[c] != expected[c])
            fail_msg("%d x %d: column %d adds up to %g, not %g", rows, columns, c, (double)sums[c], expected[c]);
    b->base.ops->free(&b->base, workspace);
    b->base.ops->free(&b->base, memory);
    b->base.ops->close(&b->base);
    free(values);
    free(x);
    free(sums);
    free(expected);
}

static void column_sums(void **state)
{
    (void)state;
    static const dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        check_column_sums(types[i], 1, 1);
        check_column_sums(types[i], 5000, 3);
        check_column_sums(types[i], 70000, 16);
        check_column_sums(types[i], 900, 264); /* one tile of 256 and a bit */
        check_column_sums(types[i], 300, 1000);
        check_column_sums(types[i], 110001, 17); /* threads have more than one run of rows */
    }
}

static void conversions(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    float *from = test_alloc(COUNT * sizeof *from);
    double numbers[COUNT];
    fill_random(numbers, COUNT, 5);
    for (int i = 0; i < COUNT; i++)
        from[i] = (float)(numbers[i] * exp(numbers[(i + 7) % COUNT] * 6));
    for (dtype type = DTYPE_F16; type <= DTYPE_BF16; type++)
        for (int count = COUNT - 1; count <= COUNT; count++) {
            uint16_t to[COUNT + 1] = {[COUNT - 1] = 0xABCD};
            cuda_backend *b = open_backend(type, 1);
            assert_int_equal(cuda_convert(b, from, (uint8_t)type, count, to), 0);
            for (int i = 0; i < count; i++)
                assert_int_equal(to[i], bits_of(from[i], type));
            assert_int_equal(to[count], count == COUNT ? 0 : 0xABCD);
            b->base.ops->close(&b->base);
        }
    free(from);
}

static float value_of(const void *memory, int i, dtype type)
{
    if (type == DTYPE_F32)
        return ((const float *)memory)[i];
    uint16_t bits = ((const uint16_t *)memory)[i];
    return type == DTYPE_F16 ? float16_value(bits) : bfloat16_value(bits);
}

/* Halves and small whole numbers, exact in every dtype, there and back. */
static void check_bias(dtype type, int rows, int columns)
{
    cuda_backend *b = open_backend(type, 1);
    int count = rows * columns;
    float *y = test_alloc((size_t)count * sizeof *y), *back = test_alloc((size_t)count * sizeof *back);
    float *bias = test_alloc((size_t)columns * sizeof *bias);
    void *memory = test_alloc((size_t)count * sizeof *y);
    for (int i = 0; i < count; i++)
        y[i] = (float)(i % 23 - 11);
    for (int c = 0; c < columns; c++)
        bias[c] = (float)c * 0.5f;
    assert_int_equal(cuda_convert(b, y, (uint8_t)type, count, memory), 0);
    assert_int_equal(cuda_add_bias(b, memory, (uint8_t)type, rows, columns, bias), 0);
    assert_int_equal(cuda_convert_to_float(b, memory, (uint8_t)type, count, back), 0);
    for (int i = 0; i < count; i++) {
        assert_true(value_of(memory, i, type) == y[i] + bias[i % columns]);
        assert_true(back[i] == y[i] + bias[i % columns]);
    }
    b->base.ops->close(&b->base);
    free(y);
    free(back);
    free(bias);
    free(memory);
}

static void bias(void **state)
{
    (void)state;
    static const dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        check_bias(types[i], 1, 1);
        check_bias(types[i], 7, 17);
        check_bias(types[i], 300, 64);
    }
}

static float absolute(float x)
{
    return x < 0 ? -x : x;
}

/* Every float16 and bfloat16 comes back from float32 as it was, and the middle between two goes to the even one. */
static void rounding(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 0x7C00; i++) {
        float here = float16_value((uint16_t)i), next = i == 0x7BFF ? 65536.0f : float16_value((uint16_t)(i + 1));
        float middle = 0.5f * (here + next);
        assert_int_equal(float16_from(here), i);
        assert_int_equal(float16_from(-here), i | 0x8000);
        assert_int_equal(float16_from(middle), i % 2 ? i + 1 : i);
        assert_int_equal(float16_from(nextafterf(middle, next)), i + 1);
        assert_int_equal(float16_from(nextafterf(middle, here)), i);
    }
    for (unsigned i = 0; i < 0x7F80; i++) {
        uint32_t middle = i << 16 | 0x8000u;
        assert_int_equal(bfloat16_from(bfloat16_value((uint16_t)i)), i);
        assert_int_equal(bfloat16_from(float32_of(middle)), i % 2 ? i + 1 : i);
        assert_int_equal(bfloat16_from(float32_of(middle + 1)), i + 1);
        assert_int_equal(bfloat16_from(float32_of(middle - 1)), i);
    }
    assert_true(float16_value(0x3C00) == 1.0f && float16_value(0xC500) == -5.0f && float16_value(1) == 0x1p-24f);
    assert_true(absolute(float16_value(float16_from(1e6f))) > 1e6f && isnan(float16_value(float16_from(NAN))));
    assert_true(bfloat16_value(0x3F80) == 1.0f && isnan(bfloat16_value(bfloat16_from(NAN))));
}

/* A class out of range: the loss is NaN, the gradient of that image alone too, and nothing outside is read. */
static void class_out_of_range(void **state)
{
    (void)state;
    enum { IMAGES = 2, CLASSES = 3 };
    cuda_backend *b = open_backend(DTYPE_F32, 1);
    kernel_request r = {.node = {.op = OP_CROSS_ENTROPY, .n_in = 2, .n_out = 1, .attr = {.count = 2, .weight = 1}},
                        .in = {{{IMAGES, 1, 1, CLASSES}, DTYPE_F32, LAYOUT_NHWC, KIND_ACTIVATION},
                               {{IMAGES, 1, 1, 1}, DTYPE_I32, LAYOUT_NHWC, KIND_INPUT}},
                        .label = "test"};
    float *logits = test_alloc(IMAGES * CLASSES * sizeof *logits), grad[IMAGES * CLASSES];
    int32_t target[IMAGES] = {1, CLASSES};
    double loss = 0, right[2], workspace[2 * IMAGES];
    kernel_args args = {.in = {logits, target}, .out = {&loss}, .workspace = workspace};
    static const unsigned ops[] = {OP_CROSS_ENTROPY, OP_CROSS_ENTROPY_GRAD, OP_TOP_K};
    void *outputs[] = {&loss, grad, right};
    for (int i = 0; i < 3; i++) {
        kernel *k = NULL;
        size_t bytes = 0;
        r.node.op = (uint16_t)ops[i];
        args.out[0] = outputs[i];
        assert_int_equal(b->base.ops->prepare(&b->base, &r, &k, &bytes), 0);
        assert_true(bytes <= sizeof workspace);
        assert_int_equal(b->base.ops->launch(&b->base, k, &args), 0);
        b->base.ops->release(&b->base, k);
    }
    assert_true(isnan(loss) && isfinite(grad[0]) && isnan(grad[CLASSES]));
    assert_true(right[0] == 0 && right[1] == 1);
    b->base.ops->close(&b->base);
    free(logits);
}

static void unknown_types_are_refused(void **state)
{
    (void)state;
    cuda_backend *b = open_backend(DTYPE_F32, 1);
    assert_true(cuda_convert(b, NULL, DTYPE_I32, 8, NULL) == ERROR_KERNEL);
    b->base.ops->close(&b->base);
}

static void skipped_steps_change_nothing(void **state)
{
    (void)state;
    for (dtype type = DTYPE_F16; type <= DTYPE_BF16; type++) {
        cuda_backend *b = open_backend(type, 1);
        check_skipped_steps(&b->base);
        check_not_finite(&b->base);
        b->base.ops->close(&b->base);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding),
        cmocka_unit_test(float32),
        cmocka_unit_test(float16),
        cmocka_unit_test(bfloat16),
        cmocka_unit_test(products_without_extras),
        cmocka_unit_test(maps_in_patches),
        cmocka_unit_test(further_results),
        cmocka_unit_test(convolutions_with_sums),
        cmocka_unit_test(products_with_sums_side_by_side),
        cmocka_unit_test(column_sums),
        cmocka_unit_test(class_out_of_range),
        cmocka_unit_test(conversions),
        cmocka_unit_test(bias),
        cmocka_unit_test(unknown_types_are_refused),
        cmocka_unit_test(skipped_steps_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

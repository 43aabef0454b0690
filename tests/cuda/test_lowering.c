/* linear_ops.c and convolution_ops.c on a plain device against the reference backend: with a device that adds biases
 * and sums gradients on the way, and with one that leaves both to native kernels. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "kernels/cuda/lower/cuda_backend.h"
#include "kernels/host_memory.h"
#include "op_cases.h"
#include "op_check.h"
#include "plain_device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the native kernels that the lowering needs ---- */

static bool fused_is_faster; /* what a measurement says */

size_t cuda_column_sums_bytes(int64_t rows, int64_t columns)
{
    return rows > 0 ? (size_t)columns * sizeof(double) : 0;
}

int cuda_column_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns, float *sums,
                     void *workspace)
{
    double *total = workspace;
    (void)self;
    memset(total, 0, (size_t)columns * sizeof *total);
    for (int64_t i = 0; i < rows * columns; i++)
        total[i % columns] += plain_load(x, type, i);
    for (int64_t i = 0; i < columns; i++)
        sums[i] = (float)total[i];
    return 0;
}

size_t cuda_channel_sums_bytes(int64_t rows, int64_t columns)
{
    return rows > 0 ? (size_t)columns * sizeof(double) : 0;
}

int cuda_channel_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns,
                      double *sums, void *workspace)
{
    (void)self, (void)workspace;
    for (int64_t c = 0; c < columns; c++) {
        sums[c] = sums[columns + c] = 0;
        for (int64_t i = c; i < rows * columns; i += columns) {
            double value = plain_load(x, type, i);
            sums[c] += value;
            sums[columns + c] += value * value;
        }
    }
    return 0;
}

int cuda_widen_sums(const cuda_backend *self, const float *sum, const float *square_sum, int64_t columns, double *sums)
{
    (void)self;
    for (int64_t c = 0; c < columns; c++) {
        sums[c] = (double)sum[c];
        sums[columns + c] = (double)square_sum[c];
    }
    return 0;
}

float cuda_kernel_time(cuda_backend *self, const kernel *k, size_t workspace)
{
    bool fused = tensor_count(&k->request.out[1]) > 0 && k->offset[2] > 0;
    (void)self, (void)workspace;
    return fused == fused_is_faster ? 1.0F : 2.0F;
}

int cuda_add_bias(const cuda_backend *self, void *y, uint8_t type, int64_t rows, int64_t columns, const float *bias)
{
    (void)self;
    for (int64_t i = 0; i < rows * columns; i++)
        plain_store(y, type, i, plain_load(y, type, i) + (double)bias[i % columns]);
    return 0;
}

int cuda_convert(const cuda_backend *self, const float *from, uint8_t type, int64_t count, void *to)
{
    (void)self;
    for (int64_t i = 0; i < count; i++)
        plain_store(to, type, i, (double)from[i]);
    return 0;
}

int cuda_convert_to_float(const cuda_backend *self, const void *from, uint8_t type, int64_t count, float *to)
{
    (void)self;
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)plain_load(from, type, i);
    return 0;
}

/* ---- a backend of these ops only ---- */

static cuda_prepare *const prepares[OP_COUNT] = {
    [OP_CONV2D] = cuda_conv2d_prepare,
    [OP_CONV2D_DGRAD] = cuda_conv2d_dgrad_prepare,
    [OP_CONV2D_WGRAD] = cuda_conv2d_wgrad_prepare,
    [OP_LINEAR] = cuda_linear_prepare,
    [OP_LINEAR_DGRAD] = cuda_linear_dgrad_prepare,
    [OP_LINEAR_WGRAD] = cuda_linear_wgrad_prepare,
    [OP_CONCAT_LINEAR] = cuda_concat_linear_prepare,
    [OP_CONCAT_LINEAR_DGRAD] = cuda_concat_linear_dgrad_prepare,
    [OP_CONCAT_LINEAR_WGRAD] = cuda_concat_linear_wgrad_prepare,
};

static void plain_release(backend *base, kernel *k)
{
    (void)base;
    if (k->plan)
        k->release_plan(k->plan);
    free(k);
}

static int plain_prepare(backend *base, const kernel_request *request, kernel **out, size_t *workspace)
{
    kernel *k = test_alloc(sizeof *k);
    k->request = *request;
    *workspace = 0;
    int code = prepares[request->node.op]((cuda_backend *)base, k, workspace);
    if (code < 0) {
        plain_release(base, k);
        return code;
    }
    *out = k;
    return 0;
}

static int plain_launch(backend *base, kernel *k, const kernel_args *args)
{
    return k->launch((cuda_backend *)base, k, args);
}

static void *plain_alloc(backend *base, size_t bytes)
{
    (void)base;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void plain_free(backend *base, void *memory)
{
    (void)base;
    free(memory);
}

static const backend_ops plain_ops = {.name = "plain",
                                      .real = DTYPE_F32,
                                      .activation = DTYPE_F32,
                                      .host_memory = true,
                                      .prepare = plain_prepare,
                                      .launch = plain_launch,
                                      .release = plain_release,
                                      .write = host_memory_write,
                                      .read = host_memory_read,
                                      .copy = host_memory_copy,
                                      .zero = host_memory_zero,
                                      .synchronize = host_memory_synchronize,
                                      .alloc = plain_alloc,
                                      .free = plain_free};

/* ---- the check ---- */

static void run(backend *b, const kernel_request *r, const test_tensor in[NODE_MAX_IN], const char *name,
                op_result *out)
{
    kernel *k = NULL;
    size_t bytes = 0;
    test_tensor own[NODE_MAX_IN];
    memcpy(own, in, sizeof own);
    for (int i = 0; i < NODE_MAX_IN; i++)
        own[i].desc = r->in[i];
    if (b->ops->prepare(b, r, &k, &bytes) < 0)
        fail_msg("%s: %s", name, error_message());
    op_launch(b, k, r, bytes, own, -1, name, out);
    b->ops->release(b, k);
}

static void check_request(backend *plain, backend *reference, const kernel_request *r, const kernel_request *exact,
                          const char *name)
{
    test_tensor in[NODE_MAX_IN];
    op_result got, expected;
    op_inputs_init(in, r, 1);
    run(plain, r, in, name, &got);
    run(reference, exact, in, name, &expected);
    for (int i = 0; i < NODE_MAX_OUT; i++) {
        double difference = 0, norm = 0;
        for (int64_t e = 0; got.out[i] && e < tensor_count(&r->out[i]); e++) {
            difference += pow(got.out[i][e] - expected.out[i][e], 2);
            norm += pow(expected.out[i][e], 2);
        }
        if (sqrt(difference) > 1e-6 * sqrt(norm))
            fail_msg("%s: output %d is off by %g relative", name, i, sqrt(difference / norm));
    }
    op_result_free(&got);
    op_result_free(&expected);
    op_inputs_free(in);
}

/* Every layer of these kinds; every output wanted, then each optional one left out. */
static void check_all(bool extras)
{
    cuda_backend plain = {.base = {&plain_ops},
                          .real = DTYPE_F32,
                          .products = &(cuda_products){.extras = extras},
                          .convolutions = &(cuda_convolutions){.bias = extras}};
    backend *reference = NULL;
    if (backend_reference_open(&reference, 1) < 0)
        fail_msg("%s", error_message());
    int checked = 0;
    for (int row = 0; row < layer_case_count; row++) {
        kernel_request r[LAYER_MAX_OPS], exact[LAYER_MAX_OPS];
        int count = layer_requests(&layer_cases[row], DTYPE_F32, r);
        layer_requests(&layer_cases[row], DTYPE_F64, exact);
        for (int i = 0; i < count; i++) {
            char name[192];
            if (!prepares[r[i].node.op])
                continue;
            layer_describe(&layer_cases[row], op_case_name(r[i].node.op), name, sizeof name);
            check_request(&plain.base, reference, &r[i], &exact[i], name);
            for (int o = 0; o < 2 && tensor_count(&r[i].out[1]) > 0; o++) {
                kernel_request less = r[i], less_exact = exact[i];
                less.out[o] = less_exact.out[o] = (tensor_desc){0};
                less.node.out[o] = less_exact.node.out[o] = VALUE_NONE;
                check_request(&plain.base, reference, &less, &less_exact, name);
            }
            checked++;
        }
    }
    reference->ops->close(reference);
    assert_true(checked >= 9);
}

static void with_extras(void **state)
{
    (void)state;
    check_all(true);
}

static void without_extras(void **state)
{
    (void)state;
    check_all(false);
}

/* Sums with a convolution: as is known, and else as is measured, once. */
static void sums_of_a_convolution(void **state)
{
    static const struct {
        cuda_sums_way known;
        bool fused_is_faster;
        cuda_sums_way kept;
    } cases[] = {{CUDA_SUMS_FUSED, false, CUDA_SUMS_FUSED},
                 {CUDA_SUMS_APART, true, CUDA_SUMS_APART},
                 {CUDA_SUMS_UNKNOWN, false, CUDA_SUMS_APART},
                 {CUDA_SUMS_UNKNOWN, true, CUDA_SUMS_FUSED}};
    (void)state;
    backend *reference = NULL;
    assert_int_equal(backend_reference_open(&reference, 1), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cuda_convolutions convolutions = {.bias = true, .sums = cases[i].known};
        cuda_backend plain = {.base = {&plain_ops},
                              .real = DTYPE_F32,
                              .products = &(cuda_products){.extras = true},
                              .convolutions = &convolutions};
        fused_is_faster = cases[i].fused_is_faster;
        assert_true(op_check_fused(&plain.base, reference, OP_CONV2D, 1e-6) >= 10);
        assert_int_equal(convolutions.sums, cases[i].kept);
    }
    reference->ops->close(reference);
}

/* 16-bit operands: the gradient of a weight is float32 whether or not it is computed as one. Small integers are exact
 * in either type, so the sums must be. */
static void sixteen_bit_gradient(void **state)
{
    (void)state;
    enum { N = 2, SIDE = 4, C = 8, O = 8, KERNEL = 3 };
    static const uint8_t types[] = {DTYPE_F16, DTYPE_BF16};
    cuda_backend plain = {.base = {&plain_ops}, .convolutions = &(cuda_convolutions){.bias = true}};
    for (int t = 0; t < 2; t++) {
        uint16_t x[N * SIDE * SIDE * C], dy[N * SIDE * SIDE * O];
        float dw[O * KERNEL * KERNEL * C], dbias[O];
        for (int i = 0; i < N * SIDE * SIDE * C; i++) {
            plain_store(x, types[t], i, i % 3);
            plain_store(dy, types[t], i, i % 5 == 0);
        }
        kernel_request r = {
            .node = {.op = OP_CONV2D_WGRAD, .attr = {.kernel = KERNEL, .stride = 1, .pad = 1, .groups = 1}},
            .in = {{{N, SIDE, SIDE, C}, types[t], LAYOUT_NHWC, 0}, {{N, SIDE, SIDE, O}, types[t], 0, 0}},
            .out = {{{O, KERNEL, KERNEL, C}, DTYPE_F32, LAYOUT_OHWI, 0}, {{1, 1, 1, O}, DTYPE_F32, 0, 0}}};
        kernel *k;
        size_t bytes;
        assert_int_equal(plain_prepare(&plain.base, &r, &k, &bytes), 0);
        kernel_args args = {.in = {x, dy}, .out = {dw, dbias}, .workspace = plain_alloc(NULL, bytes)};
        assert_int_equal(plain_launch(&plain.base, k, &args), 0);
        double centre = 0, bias = 0; /* of output channel 0, input channel 0 */
        for (int i = 0; i < N * SIDE * SIDE; i++) {
            centre += plain_load(x, types[t], i * C) * plain_load(dy, types[t], i * O);
            bias += plain_load(dy, types[t], i * O);
        }
        assert_true((double)dw[(KERNEL * KERNEL / 2) * C] == centre);
        assert_true((double)dbias[0] == bias);
        plain_free(NULL, args.workspace);
        plain_release(&plain.base, k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(with_extras), cmocka_unit_test(without_extras),
                                       cmocka_unit_test(sums_of_a_convolution), cmocka_unit_test(sixteen_bit_gradient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

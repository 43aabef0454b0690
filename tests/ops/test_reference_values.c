/* The reference backend against values found in another way: direct loops from the definitions, and small examples
 * worked out by hand. One thread. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "op_cases.h"
#include "op_check.h"
#include "skip_check.h"

static int launch(backend *b, const kernel_request *r, const void *const *in, void *const *out)
{
    kernel *k = NULL;
    size_t workspace_bytes = 0;
    if (b->ops->prepare(b, r, &k, &workspace_bytes) < 0)
        fail_msg("%s", error_message());
    kernel_args args = {.workspace = test_alloc(workspace_bytes)};
    memcpy(args.in, in, r->node.n_in * sizeof *in);
    memcpy(args.out, out, r->node.n_out * sizeof *out);
    int status = b->ops->launch(b, k, &args);
    free(args.workspace);
    b->ops->release(b, k);
    return status;
}

static void apply(backend *b, const kernel_request *r, const void *const *in, void *const *out)
{
    if (launch(b, r, in, out) < 0)
        fail_msg("%s", error_message());
}

static void assert_close(const double *got, const double *expected, int64_t count, const char *name)
{
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(got[i] - expected[i]) <= 1e-12 * (1 + fabs(expected[i]))))
            fail_msg("%s: element %lld is %.17g, expected %.17g", name, (long long)i, got[i], expected[i]);
}

static double at(const tensor_desc *t, const double *value, int n, int y, int x, int c)
{
    if (y < 0 || x < 0 || y >= t->dim[1] || x >= t->dim[2])
        return 0;
    return value[((n * t->dim[1] + y) * t->dim[2] + x) * t->dim[3] + c];
}

/* One output of a convolution, from the definition. */
static double direct_convolution(const kernel_request *r, const test_tensor *in, int n, int oy, int ox, int o)
{
    const op_attr *a = &r->node.attr;
    int group_in = r->in[1].dim[3], group = o / (r->out[0].dim[3] / a->groups);
    double sum = in[2].real ? in[2].real[o] : 0;
    for (int ky = 0; ky < a->kernel; ky++)
        for (int kx = 0; kx < a->kernel; kx++)
            for (int c = 0; c < group_in; c++)
                sum +=
                    at(&r->in[1], in[1].real, o, ky, kx, c) * at(&r->in[0], in[0].real, n, oy * a->stride + ky - a->pad,
                                                                 ox * a->stride + kx - a->pad, group * group_in + c);
    return sum;
}

/* Output (oy, ox) of an upsample with align_corners: the small feature map read at oy * (h - 1) / (2h - 1). */
static double direct_upsample(const kernel_request *r, const test_tensor *in, int n, int oy, int ox, int c)
{
    const tensor_desc *t = &r->in[0];
    double y = (double)oy * (t->dim[1] - 1) / (2 * t->dim[1] - 1),
           x = (double)ox * (t->dim[2] - 1) / (2 * t->dim[2] - 1);
    double sum = 0;
    for (int sy = 0; sy < t->dim[1]; sy++)
        for (int sx = 0; sx < t->dim[2]; sx++)
            sum += fmax(0, 1 - fabs(y - sy)) * fmax(0, 1 - fabs(x - sx)) * at(t, in[0].real, n, sy, sx, c);
    return sum;
}

/* Output element (n, py, px, e) of patches: element e is (ky, kx, c) of the patch. */
static double direct_patch(const kernel_request *r, const test_tensor *in, int n, int py, int px, int e)
{
    int k = r->node.attr.kernel, c = r->in[0].dim[3];
    return at(&r->in[0], in[0].real, n, py * k + e / c / k, px * k + e / c % k, e % c);
}

static double direct_linear(const kernel_request *r, const test_tensor *in, int n, int y, int x, int o)
{
    double sum = in[2].real ? in[2].real[o] : 0;
    for (int k = 0; k < r->in[0].dim[3]; k++)
        sum += at(&r->in[0], in[0].real, n, y, x, k) * in[1].real[o * r->in[0].dim[3] + k];
    return sum;
}

static double direct_concat_linear(const kernel_request *r, const test_tensor *in, int n, int y, int x, int o)
{
    int ka = r->in[0].dim[3], k = ka + r->in[1].dim[3];
    double sum = 0;
    for (int i = 0; i < k; i++)
        sum += in[2].real[o * k + i] *
               (i < ka ? at(&r->in[0], in[0].real, n, y, x, i) : at(&r->in[1], in[1].real, n, y, x, i - ka));
    return sum;
}

/* The largest of the elements that a window finds on the feature map. */
static double direct_max_pool(const kernel_request *r, const test_tensor *in, int n, int oy, int ox, int c)
{
    const tensor_desc *t = &r->in[0];
    const op_attr *a = &r->node.attr;
    double largest = -INFINITY;
    for (int y = 0; y < t->dim[1]; y++)
        for (int x = 0; x < t->dim[2]; x++) {
            int ky = y + a->pad - oy * a->stride, kx = x + a->pad - ox * a->stride;
            if (ky >= 0 && ky < a->kernel && kx >= 0 && kx < a->kernel)
                largest = fmax(largest, at(t, in[0].real, n, y, x, c));
        }
    return largest;
}

static double direct_relu(const kernel_request *r, const test_tensor *in, int n, int y, int x, int c)
{
    return fmax(0, at(&r->in[0], in[0].real, n, y, x, c));
}

static double direct_excite(const kernel_request *r, const test_tensor *in, int n, int y, int x, int c)
{
    double gate = 1 / (1 + exp(-in[1].real[n * r->in[1].dim[3] + c]));
    return fmax(0, at(&r->in[0], in[0].real, n, y, x, c) * gate + at(&r->in[2], in[2].real, n, y, x, c));
}

typedef double direct_function(const kernel_request *r, const test_tensor *in, int n, int y, int x, int c);

/* Every case of one kind of layer: the forward op against one direct formula for an output element. */
static void check_forward(backend *b, layer_kind kind, direct_function *direct)
{
    for (int i = 0; i < layer_case_count; i++) {
        kernel_request r[LAYER_MAX_OPS];
        test_tensor in[NODE_MAX_IN];
        char name[192];
        if (layer_cases[i].kind != kind)
            continue;
        layer_requests(&layer_cases[i], DTYPE_F64, r);
        layer_describe(&layer_cases[i], op_case_name(r->node.op), name, sizeof name);
        op_inputs_init(in, r, 5);
        const tensor_desc *y = &r->out[0];
        int64_t count = tensor_count(y), next = 0;
        double *got = test_alloc((size_t)count * sizeof *got), *expected = test_alloc((size_t)count * sizeof *got);
        apply(b, r, (const void *[NODE_MAX_IN]){in[0].real, in[1].real, in[2].real}, (void *[]){got});
        for (int n = 0; n < y->dim[0]; n++)
            for (int row = 0; row < y->dim[1]; row++)
                for (int column = 0; column < y->dim[2]; column++)
                    for (int c = 0; c < y->dim[3]; c++)
                        expected[next++] = direct(r, in, n, row, column, c);
        assert_close(got, expected, count, name);
        free(got);
        free(expected);
        op_inputs_free(in);
    }
}

static void layers_match_direct_loops(void **state)
{
    check_forward(*state, LAYER_CONV2D, direct_convolution);
    check_forward(*state, LAYER_UPSAMPLE2X, direct_upsample);
    check_forward(*state, LAYER_PATCHIFY, direct_patch);
    check_forward(*state, LAYER_LINEAR, direct_linear);
    check_forward(*state, LAYER_CONCAT_LINEAR, direct_concat_linear);
    check_forward(*state, LAYER_MAX_POOL, direct_max_pool);
    check_forward(*state, LAYER_RELU, direct_relu);
    check_forward(*state, LAYER_EXCITE, direct_excite);
}

static void losses_match_hand_values(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    double loss, p[2], q[2];
    /* Logits (0, log 3): probabilities 1/4, 3/4. Two images, attr.count 4. */
    const layer_case ce = {.kind = LAYER_CROSS_ENTROPY, .n = 2, .c = 2};
    const double logits[4] = {0, log(3.0), 1000, 1000 + log(3.0)};
    const int32_t target[2] = {0, 1};
    layer_requests(&ce, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){logits, target}, (void *[]){&loss});
    assert_close(&loss, (double[]){(log(4.0) + log(4.0 / 3)) / 4}, 1, "cross_entropy");

    /* The target 0.9 at the class, 0.05 everywhere. */
    const layer_case smoothed = {.kind = LAYER_CROSS_ENTROPY, .n = 2, .c = 2, .options = SMOOTHED};
    double grad[4];
    layer_requests(&smoothed, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){logits, target}, (void *[]){&loss});
    assert_close(&loss, (double[]){(log(4.0) + 0.95 * log(4.0 / 3) + 0.05 * log(4.0) - 0.05 * log(3.0)) / 4}, 1,
                 "smoothed");
    apply(*state, &r[1], (const void *[]){logits, target}, (void *[]){grad});
    assert_close(grad, (double[]){0.2 * (0.25 - 0.95), 0.2 * (0.75 - 0.05), 0.2 * (0.25 - 0.05), 0.2 * (0.75 - 0.95)},
                 4, "cross_entropy_grad");

    /* T = 4: student 1/4, 3/4, teacher 1/2, 1/2, each raised by 1e-7. One image, attr.count 2. */
    const layer_case kd = {.kind = LAYER_KD_LOSS, .n = 1, .c = 2};
    const double student[2] = {4000, 4000 + 4 * log(3.0)}, teacher[2] = {-7, -7};
    layer_requests(&kd, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){student, teacher}, (void *[]){&loss});
    p[0] = 0.25, p[1] = 0.75, q[0] = q[1] = 0.5 + 1e-7;
    double expected = 16.0 / 2 * (q[0] * log(q[0] / p[0]) + q[1] * log(q[1] / p[1]));
    assert_close(&loss, &expected, 1, "kd_loss");

    const layer_case feature = {.kind = LAYER_FEATURE_LOSS, .n = 1, .c = 3};
    layer_requests(&feature, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){1, 2, 3}, (double[]){1, 0, 6}}, (void *[]){&loss});
    assert_close(&loss, (double[]){13}, 1, "feature_loss");
}

static void top_k_counts_ties_and_nan_against_the_image(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    const layer_case row = {.kind = LAYER_CROSS_ENTROPY, .n = 8, .c = 6},
                     few = {.kind = LAYER_CROSS_ENTROPY, .n = 3, .c = 1};
    const double logits[48] = {
        9,        1,         2, 3, 4, 5, /* class 0 is first */
        9,        9,         2, 3, 4, 5, /* class 1 ties for the first place: among five only */
        1,        2,         3, 4, 5, 6, /* class 0 is sixth */
        1,        1,         3, 4, 5, 6, /* class 1 ties for the fifth place */
        NAN,      1,         1, 1, 1, 1, /* class 0 is not a number */
        9,        NAN,       1, 1, 1, 1, /* another one is not */
        INFINITY, 1,         1, 1, 1, 1, /* class 0 has no finite logit */
        9,        -INFINITY, 1, 1, 1, 1, /* another one has none */
    };
    const int32_t target[8] = {0, 1, 0, 1, 0, 0, 0, 0};
    double right[2];
    layer_requests(&row, DTYPE_F64, r);
    apply(*state, &r[2], (const void *[]){logits, target}, (void *[]){right});
    assert_close(right, (double[]){1, 2}, 2, "top_k");
    layer_requests(&few, DTYPE_F64, r); /* fewer classes than five */
    apply(*state, &r[2], (const void *[]){(double[]){7, NAN, INFINITY}, (int32_t[]){0, 0, 0}}, (void *[]){right});
    assert_close(right, (double[]){1, 1}, 2, "top_k of one class");
}

static void a_class_out_of_range_is_an_error(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    const layer_case row = {.kind = LAYER_CROSS_ENTROPY, .n = 1, .c = 3};
    double out[3];
    layer_requests(&row, DTYPE_F64, r);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(launch(*state, &r[i], (const void *[]){(double[3]){0}, (int32_t[]){3}}, (void *[]){out}),
                         ERROR_DATA);
        assert_int_equal(launch(*state, &r[i], (const void *[]){(double[3]){0}, (int32_t[]){-1}}, (void *[]){out}),
                         ERROR_DATA);
    }
}

/* Channel 0 holds 1 and 5, channel 1 holds -1 and 3; attr.count is 4, as if another rank had held two zeros. */
static void batch_norm_matches_hand_values(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    const layer_case row = {.kind = LAYER_BATCH_NORM, .n = 2, .h = 1, .w = 1, .c = 2, .terms = 1, .options = RELU};
    const double x[4] = {1, -1, 5, 3}, gamma[2] = {2, -1}, beta[2] = {0.5, 0.25};
    double sums[4], y[4];
    layer_requests(&row, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){x}, (void *[]){sums});
    assert_close(sums, (double[]){6, 2, 26, 10}, 4, "bn_sums");

    const double mean[2] = {1.5, 0.5}, variance[2] = {6.5 - 2.25, 2.5 - 0.25};
    double expected[4];
    for (int i = 0; i < 4; i++)
        expected[i] = fmax(0, gamma[i % 2] * (x[i] - mean[i % 2]) / sqrt(variance[i % 2] + 1e-5) + beta[i % 2]);
    apply(*state, &r[1], (const void *[]){x, sums, gamma, beta}, (void *[]){y});
    assert_close(y, expected, 4, "bn_normalize");
    apply(*state, &r[6], (const void *[]){x, mean, variance, gamma, beta}, (void *[]){y});
    assert_close(y, expected, 4, "bn_inference");

    double running_mean[2] = {1, 1}, running_variance[2] = {1, 1};
    apply(*state, &r[5], (const void *[]){sums, running_mean, running_variance}, (void *[]){NULL});
    assert_close(running_mean, (double[]){1.05, 0.95}, 2, "running mean");
    assert_close(running_variance, (double[]){0.9 + 0.1 * 4.25 * 4 / 3, 0.9 + 0.1 * 2.25 * 4 / 3}, 2, "running var");
}

/* What is compared in linear_bn_is_a_layer_and_its_normalisation, each in float64. */
typedef struct {
    double *sums, *y, *gsums, *dw, *dx;
} linear_bn_results;

static linear_bn_results results_alloc(const kernel_request *forward)
{
    return (linear_bn_results){test_alloc(tensor_bytes(&forward->in[2])), test_alloc(tensor_bytes(&forward->out[0])),
                               test_alloc(tensor_bytes(&forward->in[2])), test_alloc(tensor_bytes(&forward->in[1])),
                               test_alloc(tensor_bytes(&forward->in[0]))};
}

static void results_free(linear_bn_results *v)
{
    free(v->sums);
    free(v->y);
    free(v->gsums);
    free(v->dw);
    free(v->dx);
}

/* By the layer's product, which is made, and batch normalisation's own ops. */
static void two_layers(backend *b, const layer_case *row, const double *const in[4], const double *dy,
                       const linear_bn_results *v)
{
    const layer_case layer = {LAYER_LINEAR, row->n, row->h, row->w, row->c, row->o, 0, 0, 0, 0, 0, 0};
    const layer_case norm = {LAYER_BATCH_NORM, row->n, row->h, row->w, row->o, 0, 0, 0, 0, 0, 1, row->options};
    kernel_request l[LAYER_MAX_OPS], n[LAYER_MAX_OPS];
    layer_requests(&layer, DTYPE_F64, l);
    layer_requests(&norm, DTYPE_F64, n);
    double *product = test_alloc(tensor_bytes(&l[0].out[0])), *gradient = test_alloc(tensor_bytes(&l[0].out[0]));
    apply(b, &l[0], (const void *[]){in[0], in[1]}, (void *[]){product});
    apply(b, &n[0], (const void *[]){product}, (void *[]){v->sums});
    apply(b, &n[1], (const void *[]){product, v->sums, in[2], in[3], NULL}, (void *[]){v->y});
    apply(b, &n[2], (const void *[]){product, v->sums, in[2], in[3], NULL, dy}, (void *[]){v->gsums});
    apply(b, &n[3], (const void *[]){product, v->sums, in[2], in[3], v->gsums, dy}, (void *[]){gradient});
    apply(b, &l[1], (const void *[]){gradient, in[1]}, (void *[]){v->dx});
    apply(b, &l[2], (const void *[]){in[0], gradient}, (void *[]){v->dw});
    free(product);
    free(gradient);
}

static void one_layer(backend *b, const layer_case *row, const double *const in[4], const double *dy,
                      const linear_bn_results *v)
{
    const layer_case layer = {LAYER_LINEAR, row->n, row->h, row->w, row->c, row->o, 0, 0, 0, 0, 0, BIAS};
    kernel_request l[LAYER_MAX_OPS], r[LAYER_MAX_OPS];
    layer_requests(&layer, DTYPE_F64, l);
    layer_requests(row, DTYPE_F64, r);
    double *moments = test_alloc(tensor_bytes(&r[0].out[0])), *g = test_alloc(tensor_bytes(&r[2].out[0]));
    double *product = test_alloc(tensor_bytes(&r[2].in[1])), *g_sum = test_alloc(tensor_bytes(&r[2].in[3]));
    apply(b, &r[0], (const void *[]){in[0]}, (void *[]){moments});
    apply(b, &r[1], (const void *[]){moments, in[1]}, (void *[]){v->sums});
    apply(b, &r[2], (const void *[]){in[0], in[1], v->sums, in[2], in[3], moments}, (void *[]){v->y});
    for (int64_t i = 0; i < tensor_count(&r[2].out[0]); i++)
        g[i] = row->options & RELU && !(v->y[i] > 0) ? 0 : dy[i];
    apply(b, &l[2], (const void *[]){in[0], g}, (void *[]){product, g_sum});
    apply(b, &r[3], (const void *[]){product, g_sum, in[1], v->sums}, (void *[]){v->gsums});
    apply(b, &r[4], (const void *[]){product, in[1], v->sums, in[2], v->gsums, moments}, (void *[]){v->dw});
    apply(b, &r[5], (const void *[]){g, in[0], in[1], v->sums, in[2], v->gsums}, (void *[]){v->dx});
    free(moments);
    free(g);
    free(product);
    free(g_sum);
}

static void linear_bn_is_a_layer_and_its_normalisation(void **state)
{
    for (int i = 0; i < layer_case_count; i++) {
        const layer_case *row = &layer_cases[i];
        kernel_request r[LAYER_MAX_OPS];
        test_tensor in[NODE_MAX_IN];
        if (row->kind != LAYER_LINEAR_BN)
            continue;
        layer_requests(row, DTYPE_F64, r);
        op_inputs_init(in, &r[2], 5);
        const double *const given[] = {in[0].real, in[1].real, in[3].real, in[4].real};
        double *dy = test_alloc(tensor_bytes(&r[2].out[0]));
        fill_random(dy, tensor_count(&r[2].out[0]), 6);
        linear_bn_results one = results_alloc(&r[2]), two = results_alloc(&r[2]);
        one_layer(*state, row, given, dy, &one);
        two_layers(*state, row, given, dy, &two);
        assert_close(one.sums, two.sums, tensor_count(&r[2].in[2]), "sums of linear_bn");
        assert_close(one.y, two.y, tensor_count(&r[2].out[0]), "linear_bn");
        assert_close(one.gsums, two.gsums, tensor_count(&r[2].in[2]), "sums of linear_bn's gradient");
        assert_close(one.dw, two.dw, tensor_count(&r[2].in[1]), "linear_bn_wgrad");
        assert_close(one.dx, two.dx, tensor_count(&r[2].in[0]), "linear_bn_dgrad");
        results_free(&one);
        results_free(&two);
        free(dy);
        op_inputs_free(in);
    }
}

static void moves_match_hand_values(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    double out[4];
    const layer_case fold = {.kind = LAYER_FOLD, .c = 1, .o = 2};
    layer_requests(&fold, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){1, 2, 3, 5}}, (void *[]){out});
    assert_close(out, (double[]){3, 1, 8, 3}, 4, "fold_fuse_weight");

    const layer_case concat = {.kind = LAYER_CONCAT, .n = 2, .h = 1, .w = 1, .c = 1, .o = 1};
    layer_requests(&concat, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){1, 2}, (double[]){3, 4}}, (void *[]){out});
    assert_close(out, (double[]){1, 3, 2, 4}, 4, "concat");
    apply(*state, &r[2], (const void *[]){(double[]){1, 3, 2, 4}}, (void *[]){out});
    assert_close(out, (double[]){3, 4}, 2, "channel_slice");

    const layer_case pool = {.kind = LAYER_POOL, .n = 1, .h = 2, .w = 1, .c = 2};
    layer_requests(&pool, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){1, 2, 3, 6}}, (void *[]){out});
    assert_close(out, (double[]){2, 4}, 2, "global_average_pool");

    const layer_case add = {.kind = LAYER_ADD, .n = 1, .h = 1, .w = 1, .c = 1, .terms = 3};
    layer_requests(&add, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){1}, (double[]){2}, (double[]){4}}, (void *[]){out});
    assert_close(out, (double[]){7}, 1, "add");
}

/* Windows of 3x3 with stride 2 on a 3x3 feature map padded by 1 meet in its middle; of the ties the first is taken. */
static void max_pool_gives_its_gradient_to_the_first_of_the_largest(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    const layer_case row = {.kind = LAYER_MAX_POOL, .n = 1, .h = 3, .w = 3, .c = 1, .kernel = 3, .stride = 2, .pad = 1};
    const double x[9] = {-1, -1, -2, -3, -1, -4, -5, -1, -1}, dy[4] = {1, 2, 4, 8};
    double y[4], dx[9];
    layer_requests(&row, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){x}, (void *[]){y});
    assert_close(y, (double[]){-1, -1, -1, -1}, 4, "max_pool");
    apply(*state, &r[1], (const void *[]){x, dy}, (void *[]){dx});
    assert_close(dx, (double[]){1, 2, 0, 0, 4 + 8, 0, 0, 0, 0}, 9, "max_pool_grad");
}

static void clip_and_ema_match_hand_values(void **state)
{
    kernel_request r[LAYER_MAX_OPS];
    const layer_case clip = {.kind = LAYER_CLIP, .c = 2, .o = 1, .kernel = 1},
                     update = {.kind = LAYER_EMA, .c = 1, .o = 1, .kernel = 1};
    const double dw[2] = {3, -4};
    double out, ema = 2;
    layer_requests(&clip, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){dw}, (void *[]){&out});
    assert_close(&out, (double[]){25}, 1, "sum_squares");
    apply(*state, &r[1], (const void *[]){dw, (double[]){11}}, (void *[]){&out});
    assert_close(&out, (double[]){36}, 1, "sum_squares with another");
    apply(*state, &r[3], (const void *[]){dw}, (void *[]){&out});
    assert_close(&out, (double[]){0}, 1, "count_not_finite of finite numbers");
    apply(*state, &r[3], (const void *[]){(double[]){NAN, -INFINITY}}, (void *[]){&out});
    assert_close(&out, (double[]){2}, 1, "count_not_finite of others");
    apply(*state, &r[2], (const void *[]){(double[]){36}}, (void *[]){&out});
    assert_close(&out, (double[]){0.9 / 6}, 1, "clip_factor of a long gradient");
    apply(*state, &r[2], (const void *[]){(double[]){0.36}}, (void *[]){&out});
    assert_close(&out, (double[]){1}, 1, "clip_factor of a short gradient");
    apply(*state, &r[2], (const void *[]){(double[]){0}}, (void *[]){&out});
    assert_close(&out, (double[]){1}, 1, "clip_factor of no gradient");
    layer_requests(&update, DTYPE_F64, r);
    apply(*state, &r[0], (const void *[]){(double[]){7}, &ema}, (void *[]){NULL});
    assert_close(&ema, (double[]){2.5}, 1, "ema_update");
}

/* w = 2, v = 1, dw = 0.5, lr = 0.1, momentum 0.9, weight decay 0.05: g = 0.5 or 0.6, v' = 0.9 + g;
 * clipped to a fifth, g = 0.1 + 0.1. The EMA goes a quarter of the way from 6 to the new weight. */
static void sgd_matches_hand_values(void **state)
{
    const struct {
        unsigned options;
        double w, v;
    } expected[] = {{0, 2 - 0.14, 1.4},
                    {DECAY, 2 - 0.15, 1.5},
                    {NESTEROV, 2 - 0.1 * (0.5 + 0.9 * 1.4), 1.4},
                    {NESTEROV | DECAY, 2 - 0.1 * (0.6 + 0.9 * 1.5), 1.5},
                    {DECAY | CLIPPED, 2 - 0.1 * (0.9 + 0.2), 0.9 + 0.2},
                    {WITH_EMA, 2 - 0.14, 1.4}};
    for (int i = 0; i < 6; i++) {
        const layer_case row = {.kind = LAYER_SGD, .c = 1, .o = 1, .kernel = 1, .options = expected[i].options};
        kernel_request r[LAYER_MAX_OPS];
        const double *factor = expected[i].options & CLIPPED ? (double[]){0.2} : NULL;
        double w = 2, v = 1, ema = 6, followed = 6 + 0.25 * (expected[i].w - 6);
        layer_requests(&row, DTYPE_F64, r);
        apply(*state, &r[0], (const void *[]){&w, &v, (double[]){0.5}, (double[]){0.1}, factor, NULL, &ema},
              (void *[]){NULL});
        assert_close(&w, &expected[i].w, 1, "weight");
        assert_close(&v, &expected[i].v, 1, "momentum");
        assert_close(&ema, expected[i].options & WITH_EMA ? &followed : (double[]){6}, 1, "ema");
    }
}

/* The learning rate goes into the momentum: u = 0.1 * 0.5 or 0.1 * 0.6, v' = 0.9 + u; clipped to a fifth,
 * u = 0.1 * (0.1 + 0.1). */
static void rate_first_matches_hand_values(void **state)
{
    const struct {
        unsigned options;
        double w, v;
    } expected[] = {{RATE_FIRST, 2 - 0.95, 0.95},
                    {RATE_FIRST | DECAY, 2 - 0.96, 0.96},
                    {RATE_FIRST | NESTEROV | DECAY, 2 - (0.06 + 0.9 * 0.96), 0.96},
                    {RATE_FIRST | DECAY | CLIPPED, 2 - 0.92, 0.92}};
    for (int i = 0; i < 4; i++) {
        const layer_case row = {.kind = LAYER_SGD, .c = 1, .o = 1, .kernel = 1, .options = expected[i].options};
        kernel_request r[LAYER_MAX_OPS];
        const double *factor = expected[i].options & CLIPPED ? (double[]){0.2} : NULL;
        double w = 2, v = 1;
        layer_requests(&row, DTYPE_F64, r);
        apply(*state, &r[0], (const void *[]){&w, &v, (double[]){0.5}, (double[]){0.1}, factor}, (void *[]){NULL});
        assert_close(&w, &expected[i].w, 1, "weight");
        assert_close(&v, &expected[i].v, 1, "momentum");
    }
}

/* |w| = 5, |dw| = 13, lr = 2, eta 0.01, decay 0.05; the factor is a half. */
static void lars_rate_matches_hand_values(void **state)
{
    static const double w[2] = {3, -4}, dw[2] = {-5, 12}, zero[2] = {0, 0}, tiny[2] = {1e-320, 0}, lr = 2, half = 0.5,
                        nan = NAN;
    const struct {
        unsigned options;
        const double *w, *dw, *factor;
        double rate;
    } expected[] = {{0, w, dw, NULL, 2 * 0.01 * 5 / 13},
                    {DECAY, w, dw, NULL, 2 * 0.01 * 5 / (13 + 0.05 * 5)},
                    {DECAY | CLIPPED, w, dw, &half, 2 * 0.01 * 5 / (6.5 + 0.05 * 5)},
                    {DECAY, w, zero, NULL, 2 * 0.01 / 0.05},
                    {0, w, zero, NULL, 2},
                    {DECAY, zero, dw, NULL, 2},
                    {CLIPPED, w, dw, &nan, 2},
                    {0, w, tiny, NULL, 2}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const layer_case row = {.kind = LAYER_LARS, .c = 2, .o = 1, .kernel = 1, .options = expected[i].options};
        kernel_request r[LAYER_MAX_OPS];
        double rate;
        layer_requests(&row, DTYPE_F64, r);
        apply(*state, &r[0], (const void *[]){expected[i].w, expected[i].dw, &lr, expected[i].factor},
              (void *[]){&rate});
        assert_close(&rate, &expected[i].rate, 1, "lars_rate");
    }
}

static void skipped_steps_change_nothing(void **state)
{
    check_skipped_steps(*state);
    check_not_finite(*state);
}

static void what_it_cannot_run_is_refused(void **state)
{
    backend *b = *state;
    kernel *k = NULL;
    size_t bytes = 0;
    kernel_request r[LAYER_MAX_OPS];
    const layer_case row = {.kind = LAYER_ADD, .n = 1, .h = 1, .w = 1, .c = 1, .terms = 2};
    layer_requests(&row, DTYPE_F32, r);
    assert_int_equal(b->ops->prepare(b, &r[0], &k, &bytes), ERROR_KERNEL);
    assert_non_null(strstr(error_message(), "float32"));
    const kernel_request reduce = {.node = {.op = OP_ALL_REDUCE, .n_in = 1}, .label = "layer"};
    assert_int_equal(b->ops->prepare(b, &reduce, &k, &bytes), ERROR_KERNEL);
    assert_non_null(strstr(error_message(), "all_reduce"));
    assert_int_equal(backend_reference_open(&b, 0), ERROR_USAGE);
}

/* The kernels are chosen through the environment, which must be left as it was. */
static void the_environment_is_left_alone(void **state)
{
    backend *b = *state;
    const char *before = getenv("OPENBLAS_CORETYPE");
    char *kept = before ? strdup(before) : NULL;
    unsetenv("OPENBLAS_CORETYPE");
    assert_int_equal(backend_reference_open(&b, 1), 0);
    assert_null(getenv("OPENBLAS_CORETYPE"));
    b->ops->close(b);
    if (kept)
        setenv("OPENBLAS_CORETYPE", kept, 1);
    free(kept);
}

static int open_backend(void **state)
{
    backend *b = NULL;
    if (backend_reference_open(&b, 2) < 0) {
        print_error("%s\n", error_message());
        return -1;
    }
    *state = b;
    return 0;
}

static int close_backend(void **state)
{
    backend *b = *state;
    b->ops->close(b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_match_direct_loops),
        cmocka_unit_test(losses_match_hand_values),
        cmocka_unit_test(top_k_counts_ties_and_nan_against_the_image),
        cmocka_unit_test(a_class_out_of_range_is_an_error),
        cmocka_unit_test(batch_norm_matches_hand_values),
        cmocka_unit_test(linear_bn_is_a_layer_and_its_normalisation),
        cmocka_unit_test(moves_match_hand_values),
        cmocka_unit_test(max_pool_gives_its_gradient_to_the_first_of_the_largest),
        cmocka_unit_test(clip_and_ema_match_hand_values),
        cmocka_unit_test(sgd_matches_hand_values),
        cmocka_unit_test(rate_first_matches_hand_values),
        cmocka_unit_test(lars_rate_matches_hand_values),
        cmocka_unit_test(skipped_steps_change_nothing),
        cmocka_unit_test(what_it_cannot_run_is_refused),
        cmocka_unit_test(the_environment_is_left_alone),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}

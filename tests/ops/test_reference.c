/* The reference backend against itself: sentinels around every op, and every gradient op against finite differences of
 * its forward op. A layer is seen as a scalar: sum(dy * y) with a random dy, or its weighted loss. One thread. */
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

typedef struct {
    backend *b;
    const layer_case *row;
    char name[192];
    kernel_request r[LAYER_MAX_OPS];
    test_tensor in[NODE_MAX_IN];   /* of the forward op */
    double *gradient[NODE_MAX_IN]; /* of the scalar, NULL where there is none */
    double *y, *dy;
    double *sums; /* batch norm */
} layer;

static size_t bytes(const tensor_desc *t)
{
    return (size_t)tensor_count(t) * sizeof(double);
}

/* Prepares, launches and releases one op. `in` and `out` are as long as the node's lists, with NULL for absent. */
static void apply(layer *l, const kernel_request *r, const void *const *in, void *const *out)
{
    kernel *k = NULL;
    size_t workspace_bytes = 0;
    if (l->b->ops->prepare(l->b, r, &k, &workspace_bytes) < 0)
        fail_msg("%s: %s", l->name, error_message());
    kernel_args args = {.workspace = test_alloc(workspace_bytes)};
    memcpy(args.in, in, r->node.n_in * sizeof *in);
    memcpy(args.out, out, r->node.n_out * sizeof *out);
    if (l->b->ops->launch(l->b, k, &args) < 0)
        fail_msg("%s: %s", l->name, error_message());
    free(args.workspace);
    l->b->ops->release(l->b, k);
}

/* Does the forward begin with sums over the input? */
static bool has_sums(const layer *l)
{
    return l->row->kind == LAYER_BATCH_NORM || l->row->kind == LAYER_UPSAMPLE_BN;
}

/* The request whose inputs and output are the layer's: what follows the sums and moments, or the first. */
static const kernel_request *forward_request(const layer *l)
{
    return &l->r[l->row->kind == LAYER_LINEAR_BN ? 2 : has_sums(l) ? 1 : 0];
}

static bool is_loss(const layer *l)
{
    return l->row->kind == LAYER_CROSS_ENTROPY || l->row->kind == LAYER_KD_LOSS || l->row->kind == LAYER_FEATURE_LOSS;
}

static double forward(layer *l)
{
    const kernel_request *r = forward_request(l);
    const void *in[NODE_MAX_IN];
    for (int i = 0; i < NODE_MAX_IN; i++)
        in[i] = l->in[i].integer ? (const void *)l->in[i].integer : l->in[i].real;
    if (has_sums(l)) {
        apply(l, &l->r[0], in, (void *[]){l->sums});
        in[1] = l->sums;
    }
    if (l->row->kind == LAYER_LINEAR_BN) {
        apply(l, &l->r[0], in, (void *[]){l->in[5].real});
        apply(l, &l->r[1], (const void *[]){in[5], in[1]}, (void *[]){l->in[2].real});
    }
    apply(l, r, in, (void *[]){l->y});
    if (is_loss(l))
        return r->node.attr.weight * l->y[0];
    double scalar = 0;
    for (int64_t i = 0; i < tensor_count(&r->out[0]); i++)
        scalar += l->dy[i] * l->y[i];
    return scalar;
}

static void want(layer *l, int index)
{
    l->gradient[index] = test_alloc(bytes(&forward_request(l)->in[index]));
}

/* dy arrives in as many parts as the case says; the last is what the others leave. */
static void batch_norm_backward(layer *l)
{
    const layer_case *row = l->row;
    const tensor_desc *x = &l->r[1].in[0], *c = &l->r[1].in[2];
    double *gsums = test_alloc(bytes(&l->r[0].out[0])), *g = test_alloc(bytes(x)), *parts[NODE_MAX_IN] = {0};
    const void *in[NODE_MAX_IN] = {l->in[0].real, l->sums, l->in[2].real, l->in[3].real,
                                   row->options & KEPT_Y ? l->y : NULL};
    for (int p = 0; p < row->terms; p++) {
        parts[p] = test_alloc(bytes(x));
        fill_random(parts[p], tensor_count(x), 77 + (uint64_t)p);
        in[5 + p] = parts[p];
    }
    for (int64_t i = 0; i < tensor_count(x); i++) {
        double rest = l->dy[i];
        for (int p = 0; p < row->terms - 1; p++)
            rest -= parts[p][i];
        parts[row->terms - 1][i] = rest;
    }
    bool g_given = l->r[2].node.n_out == 2;
    want(l, 0);
    want(l, 2);
    want(l, 3);
    apply(l, &l->r[2], in, (void *[]){gsums, g});
    const double *dy = g_given ? g : l->dy;
    apply(l, &l->r[3], (const void *[]){in[0], l->sums, in[2], in[3], gsums, dy}, (void *[]){l->gradient[0]});
    apply(l, &l->r[4], (const void *[]){gsums}, (void *[]){l->gradient[2], l->gradient[3]});
    assert_int_equal(tensor_count(c), l->r[4].out[0].dim[3]);
    if (row->options & RESIDUAL) {
        want(l, 4);
        memcpy(l->gradient[4], dy, bytes(x));
    }
    for (int p = 0; p < row->terms; p++)
        free(parts[p]);
    free(gsums);
    free(g);
}

static void upsample_bn_backward(layer *l)
{
    const void *z = l->in[0].real, *gamma = l->in[2].real, *beta = l->in[3].real;
    double *gsums = test_alloc(bytes(&l->r[0].out[0])), *dg = test_alloc(bytes(&l->in[0].desc));
    want(l, 0);
    want(l, 2);
    want(l, 3);
    apply(l, &l->r[2], (const void *[]){z, l->sums, gamma, beta, l->dy}, (void *[]){gsums, dg});
    apply(l, &l->r[3], (const void *[]){z, l->sums, gamma, gsums, dg}, (void *[]){l->gradient[0]});
    apply(l, &l->r[4], (const void *[]){gsums}, (void *[]){l->gradient[2], l->gradient[3]});
    free(gsums);
    free(dg);
}

/* What relu_grad and linear_wgrad make of dy comes from plain loops. */
static void linear_bn_backward(layer *l)
{
    const kernel_request *r = forward_request(l);
    int outputs = r->in[1].dim[0], channels = r->in[0].dim[3];
    double *g = test_alloc(bytes(&r->out[0])), *g_sum = test_alloc(bytes(&r->in[3])),
           *dw = test_alloc(bytes(&r->in[1]));
    double *gsums = test_alloc(bytes(&r->in[2])), *x = l->in[0].real, *w = l->in[1].real, *gamma = l->in[3].real;
    const double *sums = l->in[2].real, *moments = l->in[5].real;
    for (int64_t i = 0; i < tensor_count(&r->out[0]); i++) {
        int64_t o = i % outputs, row = i / outputs;
        g[i] = r->node.attr.relu && !(l->y[i] > 0) ? 0 : l->dy[i];
        g_sum[o] += g[i];
        for (int c = 0; c < channels; c++)
            dw[o * channels + c] += g[i] * x[row * channels + c];
    }
    want(l, 0), want(l, 1), want(l, 3), want(l, 4);
    apply(l, &l->r[3], (const void *[]){dw, g_sum, w, sums}, (void *[]){gsums});
    apply(l, &l->r[4], (const void *[]){dw, w, sums, gamma, gsums, moments}, (void *[]){l->gradient[1]});
    apply(l, &l->r[5], (const void *[]){g, x, w, sums, gamma, gsums}, (void *[]){l->gradient[0]});
    memcpy(l->gradient[3], gsums + outputs, bytes(&r->in[3]));
    memcpy(l->gradient[4], gsums, bytes(&r->in[4]));
    free(g);
    free(g_sum);
    free(dw);
    free(gsums);
}

/* The loss scale of a gradient that is one of the loss itself. */
static const double unscaled[4] = {1};

/* Fills `gradient` with the backward ops; false when the layer has none. */
static bool backward(layer *l)
{
    const void *const in0 = l->in[0].real, *const in1 = l->in[1].real, *const in2 = l->in[2].real;
    double **gradient = l->gradient;
    const void *dy = l->dy;
    switch (l->row->kind) {
    case LAYER_CONV2D:
    case LAYER_LINEAR:
        want(l, 0), want(l, 1);
        if (in2)
            want(l, 2);
        apply(l, &l->r[1], (const void *[]){dy, in1}, (void *[]){gradient[0]});
        apply(l, &l->r[2], (const void *[]){in0, dy}, (void *[]){gradient[1], gradient[2]});
        return true;
    case LAYER_CONCAT_LINEAR:
        want(l, 0), want(l, 1), want(l, 2);
        apply(l, &l->r[1], (const void *[]){dy, in2}, (void *[]){gradient[0], gradient[1]});
        apply(l, &l->r[2], (const void *[]){in0, in1, dy}, (void *[]){gradient[2]});
        return true;
    case LAYER_BATCH_NORM:
        batch_norm_backward(l);
        return true;
    case LAYER_UPSAMPLE_BN:
        upsample_bn_backward(l);
        return true;
    case LAYER_LINEAR_BN:
        linear_bn_backward(l);
        return true;
    case LAYER_CONCAT:
        want(l, 0), want(l, 1);
        apply(l, &l->r[1], &dy, (void *[]){gradient[0]});
        apply(l, &l->r[2], &dy, (void *[]){gradient[1]});
        return true;
    case LAYER_UPSAMPLE2X:
    case LAYER_PATCHIFY:
    case LAYER_FOLD:
    case LAYER_POOL:
        want(l, 0);
        apply(l, &l->r[1], &dy, (void *[]){gradient[0]});
        return true;
    case LAYER_RELU:
    case LAYER_MAX_POOL: /* the output, or the input again */
        want(l, 0);
        apply(l, &l->r[1], (const void *[]){l->row->kind == LAYER_RELU ? l->y : in0, dy}, (void *[]){gradient[0]});
        return true;
    case LAYER_EXCITE:
        want(l, 0), want(l, 1), want(l, 2);
        apply(l, &l->r[1], (const void *[]){in0, in1, l->y, dy}, (void *[]){gradient[0], gradient[1], gradient[2]});
        return true;
    case LAYER_CROSS_ENTROPY:
        want(l, 0);
        apply(l, &l->r[1], (const void *[]){in0, l->in[1].integer, unscaled}, (void *[]){gradient[0]});
        return true;
    case LAYER_KD_LOSS:
        want(l, 0);
        if (l->r[1].node.n_out == 2)
            want(l, 1);
        apply(l, &l->r[1], (const void *[]){in0, in1, unscaled}, (void *[]){gradient[0], gradient[1]});
        return true;
    case LAYER_FEATURE_LOSS:
        want(l, 0);
        apply(l, &l->r[1], (const void *[]){in0, in1, unscaled}, (void *[]){gradient[0]});
        return true;
    case LAYER_ADD:
    case LAYER_CLIP:
    case LAYER_LARS:
    case LAYER_SGD:
    case LAYER_EMA:
    case LAYER_IMAGES:
    case LAYER_LOSS_SCALE:
    case LAYER_METRIC:
        return false;
    }
    return false;
}

/* Central difference of the scalar along a random direction of one input against the gradient. A direction's
 * derivative is of the size of the gradient's norm, and can be near zero by chance: the norm is the yardstick. */
static void check_direction(layer *l, int index)
{
    const double step = 1e-6, bound = 1e-6; /* a longer step would carry more units over the kink of their ReLU */
    int64_t count = tensor_count(&l->in[index].desc);
    double *x = l->in[index].real, *start = test_alloc((size_t)count * sizeof *x);
    double *direction = test_alloc((size_t)count * sizeof *x);
    double expected = 0, norm = 0;
    memcpy(start, x, (size_t)count * sizeof *x);
    fill_random(direction, count, 4321 + (uint64_t)index);
    for (int64_t i = 0; i < count; i++) {
        expected += l->gradient[index][i] * direction[i];
        norm += l->gradient[index][i] * l->gradient[index][i];
        x[i] = start[i] + step * direction[i];
    }
    double above = forward(l);
    for (int64_t i = 0; i < count; i++)
        x[i] = start[i] - step * direction[i];
    double below = forward(l), difference = (above - below) / (2 * step);
    memcpy(x, start, (size_t)count * sizeof *x);
    if (!(norm > 0) || !(fabs(difference - expected) <= bound * sqrt(norm)))
        fail_msg("%s: along input %d the gradient gives %.12g, the difference %.12g (norm %.3g)", l->name, index,
                 expected, difference, sqrt(norm));
    free(start);
    free(direction);
}

static void layer_open(layer *l, backend *b, const layer_case *row)
{
    *l = (layer){.b = b, .row = row};
    layer_requests(row, DTYPE_F64, l->r);
    const kernel_request *r = forward_request(l);
    layer_describe(row, op_case_name(r->node.op), l->name, sizeof l->name);
    op_inputs_init(l->in, r, 11);
    l->y = test_alloc(bytes(&r->out[0]));
    l->dy = test_alloc(bytes(&r->out[0]));
    fill_random(l->dy, tensor_count(&r->out[0]), 99);
    if (has_sums(l))
        l->sums = test_alloc(bytes(&l->r[0].out[0]));
}

static void layer_close(layer *l)
{
    op_inputs_free(l->in);
    for (int i = 0; i < NODE_MAX_IN; i++)
        free(l->gradient[i]);
    free(l->y);
    free(l->dy);
    free(l->sums);
}

static void gradients_match_finite_differences(void **state)
{
    for (int i = 0; i < layer_case_count; i++) {
        layer l;
        layer_open(&l, *state, &layer_cases[i]);
        forward(&l);
        if (backward(&l))
            for (int k = 0; k < NODE_MAX_IN; k++)
                if (l.gradient[k])
                    check_direction(&l, k);
        layer_close(&l);
    }
}

/* Against itself the values agree trivially; the guards, the poison and the in-place variants do not. */
static void ops_keep_to_their_buffers(void **state)
{
    op_check_all(*state, *state, 0);
}

static int open_backend(void **state)
{
    backend *b = NULL;
    if (backend_reference_open(&b, 2) < 0) {
        print_error("%s\n", error_message());
        return -1;
    }
    print_message("%s\n", b->ops->description(b));
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
        cmocka_unit_test(ops_keep_to_their_buffers),
        cmocka_unit_test(gradients_match_finite_differences),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}

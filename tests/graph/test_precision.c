/* The pass to mixed precision, on whole training steps: what is computed in 16 bits, and what never is. */
#include "model/step.h"
#include "recipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h needs the three above */
#include <cmocka.h>

static void build(graph *g, precision_options precision, bool rewrites, double clip_norm)
{
    model m;
    step_options options = recipe_step(network_find("cifarresnet8"));
    options.precision = precision;
    options.rewrites = rewrites ? REWRITE_ALL : REWRITE_NONE;
    options.sgd.clip_norm = clip_norm;
    const step_shape shape = {.training = true, .batch = 8, .global_batch = 8, .loss_batch = 8};
    graph_init(g, DTYPE_F32);
    assert_int_equal(step_build_training(g, &m, &options, &shape), 0);
    model_free(&m);
}

/* How many operands, from the first on, a product multiplies; 0 for other ops. */
static int operands(unsigned op)
{
    switch (op) {
    case OP_CONV2D:
    case OP_CONV2D_DGRAD:
    case OP_CONV2D_WGRAD:
    case OP_LINEAR:
    case OP_LINEAR_DGRAD:
    case OP_LINEAR_WGRAD:
    case OP_CONCAT_LINEAR_DGRAD:
        return 2;
    case OP_CONCAT_LINEAR:
    case OP_CONCAT_LINEAR_WGRAD:
        return 3;
    default:
        return 0;
    }
}

static bool is_loss_gradient(unsigned op)
{
    return op == OP_CROSS_ENTROPY_GRAD || op == OP_KD_LOSS_GRAD || op == OP_FEATURE_LOSS_GRAD;
}

static int count(const graph *g, unsigned op)
{
    int n = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

static void check_products(const graph *g, dtype activation)
{
    int products = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        for (int k = 0; k < operands(node->op); k++) {
            assert_int_equal(graph_desc(g, node->in[k])->dtype, activation);
            products++;
        }
        bool weight_gradient = node->op == OP_CONV2D_WGRAD || node->op == OP_LINEAR_WGRAD;
        if (operands(node->op) && weight_gradient)
            assert_int_equal(graph_desc(g, node->out[0])->dtype, DTYPE_F32);
    }
    assert_true(products > 50);
}

/* Whatever outlives the step, and every gradient, is float32; copies are not; sums are float64. */
static void check_kept(const graph *g, dtype activation)
{
    for (value_id id = 1; id < g->n_values; id++) {
        const graph_value *value = &g->values[id];
        uint8_t kind = value->desc.kind;
        bool copy = strncmp(value->name, "copy/", 5) == 0, sums = strcmp(value->name, "loss_sums") == 0;
        if (kind == KIND_PARAMETER || kind == KIND_GRADIENT || (kind == KIND_STATE && !copy && !sums))
            assert_int_equal(value->desc.dtype, DTYPE_F32);
        if (copy)
            assert_int_equal(value->desc.dtype, activation);
    }
}

/* A feature map, before or after whatever layer, never has 32 bits. */
static void check_maps(const graph *g)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++) {
            const tensor_desc *desc = graph_desc(g, g->nodes[i].out[k]);
            bool map = desc->kind == KIND_ACTIVATION && desc->layout == LAYOUT_NHWC && desc->dim[0] == 8;
            if (map)
                assert_int_not_equal(desc->dtype, DTYPE_F32);
        }
}

static void check_updates(const graph *g, bool scaled)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        char copy[2 * GRAPH_NAME_BYTES];
        if (node->op != OP_SGD_UPDATE)
            continue;
        snprintf(copy, sizeof copy, "copy/%s", g->values[node->in[0]].name);
        value_id expected = graph_find(g, copy);
        assert_int_equal(node->n_in > 5 ? node->in[5] : VALUE_NONE, expected);
        assert_int_equal(node->n_in > 4 && node->in[4] != VALUE_NONE, scaled);
    }
}

static void check_step(dtype activation, bool scaling, bool rewrites)
{
    graph g;
    build(&g, (precision_options){activation, scaling}, rewrites, 0);
    check_products(&g, activation);
    check_kept(&g, activation);
    check_maps(&g);
    check_updates(&g, scaling);
    value_id scale = graph_find(&g, "loss_scale");
    assert_int_equal(scale != VALUE_NONE, scaling);
    assert_int_equal(count(&g, OP_LOSS_SCALE), scaling);
    for (uint32_t i = 0; i < g.n_nodes; i++)
        if (is_loss_gradient(g.nodes[i].op))
            assert_int_equal(g.nodes[i].n_in == 3 ? g.nodes[i].in[2] : VALUE_NONE, scale);
    graph_free(&g);
}

static void float16_with_a_loss_scale(void **state)
{
    (void)state;
    check_step(DTYPE_F16, true, true);
    check_step(DTYPE_F16, true, false);
}

static void bfloat16_without(void **state)
{
    (void)state;
    check_step(DTYPE_BF16, false, true);
    check_step(DTYPE_BF16, false, false);
}

/* The scale is divided out in the node that also clips. */
static void clipping_is_part_of_the_scale(void **state)
{
    (void)state;
    graph g;
    build(&g, (precision_options){DTYPE_F16, true}, true, 2.5);
    assert_int_equal(count(&g, OP_CLIP_FACTOR), 0);
    for (uint32_t i = 0; i < g.n_nodes; i++)
        if (g.nodes[i].op == OP_LOSS_SCALE)
            assert_true(g.nodes[i].attr.max_norm == 2.5);
    graph_free(&g);
}

static void float32_is_left_alone(void **state)
{
    (void)state;
    graph g;
    build(&g, (precision_options){DTYPE_F32, false}, true, 0);
    assert_int_equal(count(&g, OP_CONVERT), 0);
    for (value_id id = 1; id < g.n_values; id++)
        assert_true(g.values[id].desc.dtype != DTYPE_F16 && g.values[id].desc.dtype != DTYPE_BF16);
    graph_free(&g);
}

/* One launch can then do them all. */
static void running_statistics_follow_one_another(void **state)
{
    (void)state;
    graph g;
    build(&g, (precision_options){DTYPE_F32, false}, true, 0);
    uint32_t first = 0, all = (uint32_t)count(&g, OP_BN_RUNNING);
    while (g.nodes[first].op != OP_BN_RUNNING)
        first++;
    for (uint32_t i = 0; i < all; i++)
        assert_int_equal(g.nodes[first + i].op, OP_BN_RUNNING);
    assert_true(all > 20);
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float16_with_a_loss_scale),
        cmocka_unit_test(bfloat16_without),
        cmocka_unit_test(clipping_is_part_of_the_scale),
        cmocka_unit_test(float32_is_left_alone),
        cmocka_unit_test(running_statistics_follow_one_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

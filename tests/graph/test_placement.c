/* Operands side by side and feature maps in patch order: which are so, where the plan puts them, and that nothing else
 * is put there meanwhile. */
#include "graph/placement.h"
#include "graph/plan.h"
#include "model/step.h"
#include "recipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
/* cmocka.h needs the two above */
#include <cmocka.h>

static void build(graph *g, dtype activation)
{
    model m;
    step_options options = recipe_step(network_find("cifarresnet8"));
    options.precision.activation = activation;
    const step_shape shape = {.training = true, .batch = 4, .global_batch = 4, .loss_batch = 4};
    graph_init(g, DTYPE_F32);
    assert_int_equal(step_build_training(g, &m, &options, &shape), 0);
    model_free(&m);
    graph_place_operands(g);
    assert_int_equal(graph_status(g), 0);
}

static void assert_side_by_side(const graph *g, const memory_plan *plan, value_id a, value_id b)
{
    const tensor_desc *first = graph_desc(g, a);
    assert_int_not_equal(g->values[a].whole, VALUE_NONE);
    assert_int_equal(g->values[a].whole, g->values[b].whole);
    assert_int_equal(first->row_stride, first->dim[3] + graph_desc(g, b)->dim[3]);
    assert_int_equal(plan->offset[b] - plan->offset[a], (size_t)first->dim[3] * dtype_bytes(first->dtype));
    assert_int_equal(plan->offset[a], plan->offset[g->values[a].whole]);
}

static void every_fusion_is_one_product(void **state)
{
    (void)state;
    graph g;
    memory_plan plan;
    int fusions = 0, gradients = 0;
    build(&g, DTYPE_BF16);
    assert_int_equal(plan_make(&plan, &g), 0);
    for (uint32_t i = 0; i < g.n_nodes; i++) {
        const graph_node *node = &g.nodes[i];
        if (node->op == OP_CONCAT_LINEAR || node->op == OP_CONCAT_LINEAR_WGRAD) {
            assert_side_by_side(&g, &plan, node->in[0], node->in[1]);
            fusions++;
        }
        if (node->op == OP_CONCAT_LINEAR_DGRAD) {
            assert_side_by_side(&g, &plan, node->out[0], node->out[1]);
            gradients++;
        }
    }
    assert_true(fusions > 0 && gradients > 0 && fusions == 2 * gradients);
    plan_free(&plan);
    graph_free(&g);
}

typedef struct {
    uint32_t begin, end;
} lifetime;

static value_id buffer_of(const graph *g, value_id id)
{
    return g->values[id].whole ? g->values[id].whole : id;
}

static void touch(const graph *g, lifetime *lives, value_id id, uint32_t node)
{
    lifetime *life = &lives[buffer_of(g, id)];
    life->begin = node < life->begin ? node : life->begin;
    life->end = node > life->end ? node : life->end;
}

/* A whole is nobody else's from the first node that touches a part to the last. */
static void a_whole_is_left_alone(void **state)
{
    (void)state;
    graph g;
    memory_plan plan;
    build(&g, DTYPE_F32);
    assert_int_equal(plan_make(&plan, &g), 0);
    lifetime *lives = malloc(g.n_values * sizeof *lives);
    for (value_id id = 0; id < g.n_values; id++)
        lives[id] = (lifetime){UINT32_MAX, 0};
    for (uint32_t i = 0; i < g.n_nodes; i++) {
        for (int k = 0; k < g.nodes[i].n_in; k++)
            touch(&g, lives, g.nodes[i].in[k], i);
        for (int k = 0; k < g.nodes[i].n_out; k++)
            touch(&g, lives, g.nodes[i].out[k], i);
    }
    int wholes = 0;
    for (value_id part = 1; part < g.n_values; part++) {
        value_id whole = g.values[part].whole;
        if (whole == VALUE_NONE || g.values[part].whole_channel > 0)
            continue;
        size_t begin = plan.offset[whole], end = begin + tensor_bytes(graph_desc(&g, whole));
        assert_true(end <= plan.arena_bytes[KIND_ACTIVATION]);
        wholes++;
        for (value_id id = 1; id < g.n_values; id++) {
            bool meets = graph_desc(&g, id)->kind == KIND_ACTIVATION && buffer_of(&g, id) != whole &&
                         lives[id].begin <= lives[whole].end && lives[whole].begin <= lives[id].end &&
                         !g.values[id].whole;
            if (meets && plan.offset[id] < end && begin < plan.offset[id] + tensor_bytes(graph_desc(&g, id)))
                fail_msg("value %u lies in the whole %u", id, whole);
        }
    }
    assert_true(wholes > 0);
    free(lives);
    plan_free(&plan);
    graph_free(&g);
}

static int count_nodes(const graph *g, op_id op)
{
    int count = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        count += g->nodes[i].op == op;
    return count;
}

/* The feature map of the last student goes into patches only, the other two are upsampled as well; all three gradients
 * come back as patches. */
static void maps_lie_in_patches(void **state)
{
    (void)state;
    graph g;
    memory_plan plan;
    int written = 0, read = 0;
    build(&g, DTYPE_F16);
    assert_int_equal(plan_make(&plan, &g), 0);
    assert_int_equal(count_nodes(&g, OP_PATCHIFY), 2);
    assert_int_equal(count_nodes(&g, OP_UNPATCHIFY), 0);
    for (uint32_t i = 0; i < g.n_nodes; i++) {
        const graph_node *node = &g.nodes[i];
        for (int k = 0; k < node->n_out; k++)
            written += graph_desc(&g, node->out[k])->patch > 0;
        for (int k = 0; k < node->n_in && node->op == OP_BN_GRAD_SUMS; k++)
            read += graph_desc(&g, node->in[k])->patch > 0;
    }
    assert_int_equal(written, 1);
    assert_int_equal(read, 3);
    for (value_id id = 1; id < g.n_values; id++)
        if (graph_desc(&g, id)->patch) {
            value_id patches = g.values[id].whole;
            assert_int_equal(plan.offset[id], plan.offset[patches]);
            assert_int_equal(tensor_bytes(graph_desc(&g, id)), tensor_bytes(graph_desc(&g, patches)));
        }
    plan_free(&plan);
    graph_free(&g);
}

/* A feature map that the host reads stays as it is. */
static void a_kept_map_is_cut(void **state)
{
    (void)state;
    graph g;
    const int32_t map[4] = {2, 4, 4, 8}, channels[4] = {1, 1, 1, 8};
    const op_attr attr = {.kernel = 2, .eps = 1e-5};
    for (int keep = 0; keep < 2; keep++) {
        graph_init(&g, DTYPE_F32);
        value_id in[5] = {graph_input(&g, "x", DTYPE_F32, map), graph_state(&g, "mean", LAYOUT_C, channels),
                          graph_state(&g, "variance", LAYOUT_C, channels),
                          graph_parameter(&g, "gamma", LAYOUT_C, channels),
                          graph_parameter(&g, "beta", LAYOUT_C, channels)};
        value_id y = graph_apply(&g, OP_BN_INFERENCE, &attr, 5, in);
        graph_keep(&g, graph_apply(&g, OP_PATCHIFY, &attr, 1, &y), "patches");
        if (keep)
            graph_keep(&g, y, "map");
        graph_place_operands(&g);
        assert_int_equal(graph_status(&g), 0);
        assert_int_equal(count_nodes(&g, OP_PATCHIFY), keep);
        graph_free(&g);
    }
}

/* A value that the host reads, or that another op reads, stays dense. */
static void others_stay_apart(void **state)
{
    (void)state;
    graph g;
    const int32_t map[4] = {2, 4, 4, 8}, weight[4] = {8, 1, 1, 16};
    graph_init(&g, DTYPE_F32);
    value_id x = graph_input(&g, "x", DTYPE_F32, map), w = graph_parameter(&g, "w", LAYOUT_OI, weight);
    value_id a = graph_apply(&g, OP_RELU, NULL, 1, &x), b = graph_apply(&g, OP_RELU, NULL, 1, &x);
    graph_apply(&g, OP_CONCAT_LINEAR, NULL, 3, (value_id[]){a, b, w});
    graph_place_operands(&g);
    assert_int_equal(graph_status(&g), 0);
    for (value_id id = 1; id < g.n_values; id++)
        assert_int_equal(g.values[id].whole, VALUE_NONE);
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fusion_is_one_product), cmocka_unit_test(a_whole_is_left_alone),
        cmocka_unit_test(maps_lie_in_patches),         cmocka_unit_test(a_kept_map_is_cut),
        cmocka_unit_test(others_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

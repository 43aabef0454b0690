/* Nodes that give results on the way: which do, and that nothing else changes. */
#include "graph/fusion.h"
#include "model/step.h"
#include "recipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs the two above */
#include <cmocka.h>

static void build(graph *g, const char *network, int32_t size)
{
    model m;
    step_options options = recipe_step(network_find(network));
    options.model.image_height = options.model.image_width = size;
    const step_shape shape = {.training = true, .batch = 4, .global_batch = 8, .loss_batch = 8, .sync_bn = true};
    graph_init(g, DTYPE_F32);
    assert_int_equal(step_build_training(g, &m, &options, &shape), 0);
    model_free(&m);
}

static const graph_node *writer_of(const graph *g, value_id value, uint32_t before)
{
    for (uint32_t i = 0; i < before; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] == value)
                return &g->nodes[i];
    return NULL;
}

static void convolutions_give_sums(void **state)
{
    (void)state;
    graph before, after;
    uint32_t given = 0, left = 0, with_gradients = 0;
    build(&before, "cifarresnet8", 32);
    build(&after, "cifarresnet8", 32);
    graph_fuse(&after);
    assert_int_equal(graph_status(&after), 0);
    for (uint32_t i = 0; i < after.n_nodes; i++) {
        const graph_node *node = &after.nodes[i], *writer;
        given += (node->op == OP_CONV2D || node->op == OP_CONCAT_LINEAR) && node->n_out == 2;
        bool gradient_sums =
            node->op == OP_BN_GRAD_SUMS || node->op == OP_UPSAMPLE_BN_GRAD_SUMS || node->op == OP_LINEAR_BN_GRAD_SUMS;
        with_gradients += gradient_sums && node->n_out == 4;
        assert_int_not_equal(node->op, OP_BN_PARAM_GRAD);
        for (int k = 0; k < node->n_in; k++) /* still written before it is read */
            if (writer_of(&before, node->in[k], before.n_nodes))
                assert_non_null(writer_of(&after, node->in[k], i));
        if (node->op != OP_BN_SUMS)
            continue;
        writer = writer_of(&after, node->in[0], i);
        assert_true(writer->op != OP_CONCAT_LINEAR && (writer->op != OP_CONV2D || writer->n_in == 3));
        left++;
    }
    assert_true(given > 10 && left > 0); /* patches come from other products */
    assert_int_equal(after.n_nodes + given + with_gradients, before.n_nodes);
    graph_free(&before);
    graph_free(&after);
}

/* The results of a node that went away come from the writer of what it read. */
static void check_moved(const graph *g, const graph_node *gone, uint32_t before)
{
    const graph_node *writer = writer_of(g, gone->in[0], before);
    if (gone->op == OP_BN_SUMS) {
        assert_true(writer->op == OP_CONV2D || writer->op == OP_CONCAT_LINEAR);
        assert_int_equal(writer->out[1], gone->out[0]);
    } else {
        assert_int_equal(gone->op, OP_BN_PARAM_GRAD);
        assert_int_equal(writer->out[0], gone->in[0]);
        assert_int_equal(writer->out[2], gone->out[0]);
        assert_int_equal(writer->out[3], gone->out[1]);
    }
}

/* And a label stays with its node. */
static void labels_stay(void **state)
{
    (void)state;
    graph before, after;
    build(&before, "cifarresnet8", 32);
    build(&after, "cifarresnet8", 32);
    graph_fuse(&after);
    for (uint32_t i = 0, j = 0; i < after.n_nodes; i++, j++) {
        for (; before.nodes[j].op != after.nodes[i].op; j++)
            check_moved(&after, &before.nodes[j], i);
        assert_int_equal(after.nodes[i].op, before.nodes[j].op);
        assert_string_equal(after.nodes[i].label, before.nodes[j].label);
    }
    graph_free(&before);
    graph_free(&after);
}

/* The first layer's feature map is not read again in the backward: its pool has noted what it took. */
static void pools_note_their_choices(void **state)
{
    (void)state;
    graph g;
    value_id map = VALUE_NONE;
    int gradients = 0;
    build(&g, "resnet18", 64);
    graph_fuse(&g);
    assert_int_equal(graph_status(&g), 0);
    for (uint32_t i = 0; i < g.n_nodes; i++) {
        const graph_node *node = &g.nodes[i];
        if (node->op == OP_MAX_POOL) {
            map = node->in[0];
            assert_int_equal(node->n_out, 2);
            assert_int_equal(graph_desc(&g, node->out[1])->dtype, DTYPE_U8);
            assert_int_equal(tensor_count(graph_desc(&g, node->out[1])), tensor_count(graph_desc(&g, node->out[0])));
        }
        if (node->op == OP_MAX_POOL_GRAD) {
            assert_int_equal(node->in[0], VALUE_NONE);
            assert_int_equal(writer_of(&g, node->in[2], i)->op, OP_MAX_POOL);
            gradients++;
        }
    }
    assert_int_equal(gradients, 1);
    assert_int_equal(graph_count_uses(&g, map), 1);
    graph_free(&g);
}

/* All losses with their gradients, all running statistics and all sums of what is measured are one run each. */
static void updates_and_losses_are_runs(void **state)
{
    (void)state;
    graph g;
    int losses = 0, running = 0, metrics = 0;
    build(&g, "cifarresnet8", 32);
    for (uint32_t i = 0; i < g.n_nodes; i++) {
        losses += op_is_loss(g.nodes[i].op);
        running += g.nodes[i].op == OP_BN_RUNNING;
        metrics += g.nodes[i].op == OP_METRIC_ADD;
    }
    assert_true(losses > 20 && running > 10 && metrics > 10);
    for (uint32_t i = 0; i < g.n_nodes;) {
        int length = (int)graph_run_length(&g, i);
        if (op_is_loss(g.nodes[i].op))
            assert_int_equal(length, losses);
        if (g.nodes[i].op == OP_BN_RUNNING)
            assert_int_equal(length, running);
        if (g.nodes[i].op == OP_METRIC_ADD)
            assert_int_equal(length, metrics);
        i += (uint32_t)length;
    }
    graph_free(&g);
}

/* A loss that reads another one's result begins a run of its own. */
static void dependent_losses_are_apart(void **state)
{
    (void)state;
    graph g;
    const int32_t rows[4] = {2, 1, 1, 3};
    graph_init(&g, DTYPE_F32);
    value_id in[2] = {graph_input(&g, "logits", DTYPE_F32, rows),
                      graph_input(&g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1})};
    value_id first = graph_value_new(&g, *graph_desc(&g, in[0]), NULL);
    value_id second = graph_value_new(&g, *graph_desc(&g, in[0]), NULL);
    graph_emit(&g, OP_CROSS_ENTROPY_GRAD, NULL, 2, in, 1, &first);
    graph_emit(&g, OP_CROSS_ENTROPY_GRAD, NULL, 2, (value_id[]){first, in[1]}, 1, &second);
    assert_int_equal(graph_status(&g), 0);
    assert_int_equal(graph_run_length(&g, 0), 1);
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions_give_sums), cmocka_unit_test(labels_stay),
                                       cmocka_unit_test(pools_note_their_choices),
                                       cmocka_unit_test(updates_and_losses_are_runs),
                                       cmocka_unit_test(dependent_losses_are_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

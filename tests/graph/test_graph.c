/* The builder: shape errors and their messages, the sticky status, the backward's guards, the Graphviz text. */
#include "base/error.h"
#include "graph/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static value_id map(graph *g, const char *name, int32_t side, int32_t channels)
{
    return graph_input(g, name, DTYPE_F64, (const int32_t[]){2, side, side, channels});
}

static value_id weight(graph *g, const char *name, int32_t out, int32_t kernel, int32_t in)
{
    return graph_parameter(g, name, LAYOUT_OHWI, (const int32_t[]){out, kernel, kernel, in});
}

static value_id vector(graph *g, const char *name, int32_t count)
{
    return graph_parameter(g, name, LAYOUT_C, (const int32_t[]){1, 1, 1, count});
}

static int setup(void **state)
{
    graph *g = malloc(sizeof *g);
    graph_init(g, DTYPE_F64);
    graph_scope(g, "layer2.1");
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    graph_free(*state);
    free(*state);
    return 0;
}

/* The graph has failed with this code, and its message names the layer and these sizes. */
static void expect_failure(const graph *g, int code, const char *const *words)
{
    assert_int_equal(graph_status(g), code);
    assert_non_null(strstr(error_message(), "layer2.1"));
    for (; *words; words++)
        if (!strstr(error_message(), *words))
            fail_msg("\"%s\" does not say %s", error_message(), *words);
}

#define EXPECT_SHAPE_ERROR(g, ...) expect_failure(g, ERROR_SHAPE, (const char *const[]){__VA_ARGS__, NULL})

static const op_attr one_by_one = {.kernel = 1, .stride = 1, .groups = 1};

static void add_of_other_size(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_ADD, NULL, 2, (value_id[]){map(g, "a", 6, 3), map(g, "b", 5, 3)});
    EXPECT_SHAPE_ERROR(g, "2x6x6x3", "2x5x5x3");
}

static void residual_of_other_size(void **state)
{
    graph *g = *state;
    value_id in[6] = {map(g, "x", 6, 3), vector(g, "m", 3), vector(g, "v", 3), vector(g, "c", 3), vector(g, "d", 3)};
    in[5] = map(g, "residual", 6, 4);
    graph_apply(g, OP_BN_INFERENCE, NULL, 6, in);
    EXPECT_SHAPE_ERROR(g, "2x6x6x3", "2x6x6x4");
}

static void upsampled_normalisation_of_other_channels(void **state)
{
    graph *g = *state;
    value_id z = map(g, "z", 6, 3), sums = graph_apply(g, OP_UPSAMPLE_BN_SUMS, NULL, 1, &z);
    graph_apply(g, OP_UPSAMPLE_BN, NULL, 4, (value_id[]){z, sums, vector(g, "c", 3), vector(g, "d", 4)});
    EXPECT_SHAPE_ERROR(g, "vector of 4", "3 channels");
}

static void convolution_of_other_channels(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_CONV2D, &one_by_one, 2, (value_id[]){map(g, "x", 6, 3), weight(g, "w", 8, 1, 5)});
    EXPECT_SHAPE_ERROR(g, "takes 5 channels", "has 3");
}

static void convolution_larger_than_the_map(void **state)
{
    graph *g = *state;
    op_attr attr = {.kernel = 7, .stride = 1, .pad = 1, .groups = 1};
    graph_apply(g, OP_CONV2D, &attr, 2, (value_id[]){map(g, "x", 4, 3), weight(g, "w", 8, 7, 3)});
    EXPECT_SHAPE_ERROR(g, "7x7", "4x4");
}

static void bias_of_other_size(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_CONV2D, &one_by_one, 3,
                (value_id[]){map(g, "x", 6, 3), weight(g, "w", 8, 1, 3), vector(g, "b", 7)});
    EXPECT_SHAPE_ERROR(g, "bias of 7", "8 channels");
}

static void linear_of_other_features(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){map(g, "x", 1, 12), weight(g, "w", 8, 1, 10)});
    EXPECT_SHAPE_ERROR(g, "takes 10 features", "has 12");
}

static void concat_of_other_size(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_CONCAT, NULL, 2, (value_id[]){map(g, "a", 6, 3), map(g, "b", 3, 3)});
    EXPECT_SHAPE_ERROR(g, "6x6", "3x3");
}

static void concat_linear_of_other_channels(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_CONCAT_LINEAR, NULL, 3,
                (value_id[]){map(g, "a", 6, 3), map(g, "b", 6, 3), weight(g, "w", 4, 1, 7)});
    EXPECT_SHAPE_ERROR(g, "takes 7 channels", "3 + 3");
}

static void patches_that_do_not_fill_the_map(void **state)
{
    graph *g = *state;
    value_id x = map(g, "x", 6, 3);
    graph_apply(g, OP_PATCHIFY, &(op_attr){.kernel = 4}, 1, &x);
    EXPECT_SHAPE_ERROR(g, "6x6", "4x4");
}

static void loss_over_other_batches(void **state)
{
    graph *g = *state;
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){3, 1, 1, 1});
    graph_apply(g, OP_CROSS_ENTROPY, NULL, 2, (value_id[]){map(g, "x", 1, 5), target});
    EXPECT_SHAPE_ERROR(g, "2 and 3 images");
}

static void loss_between_other_features(void **state)
{
    graph *g = *state;
    graph_apply(g, OP_FEATURE_LOSS, NULL, 2, (value_id[]){map(g, "student", 1, 24), map(g, "teacher", 1, 32)});
    EXPECT_SHAPE_ERROR(g, "2x1x1x24", "2x1x1x32");
}

static void shapes_follow_from_inputs(void **state)
{
    graph *g = *state;
    value_id x = map(g, "x", 9, 6);
    op_attr attr = {.kernel = 3, .stride = 2, .pad = 1, .groups = 2};
    x = graph_apply(g, OP_CONV2D, &attr, 2, (value_id[]){x, weight(g, "w", 8, 3, 3)});
    assert_memory_equal(graph_desc(g, x)->dim, ((int32_t[]){2, 5, 5, 8}), sizeof(int32_t[4]));
    x = graph_apply(g, OP_UPSAMPLE2X, NULL, 1, &x);
    value_id sums = graph_apply(g, OP_UPSAMPLE_BN_SUMS, NULL, 1, &x);
    assert_int_equal(graph_desc(g, sums)->dtype, DTYPE_F64);
    assert_memory_equal(graph_desc(g, sums)->dim, ((int32_t[]){1, 1, 2, 8}), sizeof(int32_t[4]));
    value_id u = graph_apply(g, OP_UPSAMPLE_BN, NULL, 4, (value_id[]){x, sums, vector(g, "c", 8), vector(g, "d", 8)});
    assert_memory_equal(graph_desc(g, u)->dim, ((int32_t[]){2, 20, 20, 8}), sizeof(int32_t[4]));
    value_id y = graph_apply(g, OP_CONCAT, NULL, 2, (value_id[]){x, map(g, "b", 10, 3)});
    assert_memory_equal(graph_desc(g, y)->dim, ((int32_t[]){2, 10, 10, 11}), sizeof(int32_t[4]));
    value_id patches = graph_apply(g, OP_PATCHIFY, &(op_attr){.kernel = 5}, 1, &x);
    assert_memory_equal(graph_desc(g, patches)->dim, ((int32_t[]){2, 2, 2, 200}), sizeof(int32_t[4]));
    sums = graph_apply(g, OP_BN_SUMS, NULL, 1, &x);
    assert_int_equal(graph_desc(g, sums)->dtype, DTYPE_F64);
    assert_memory_equal(graph_desc(g, sums)->dim, ((int32_t[]){1, 1, 2, 8}), sizeof(int32_t[4]));
    assert_int_equal(graph_status(g), 0);
}

static void first_failure_stays(void **state)
{
    graph *g = *state;
    value_id x = map(g, "x", 6, 3);
    value_id bad = graph_apply(g, OP_ADD, NULL, 2, (value_id[]){x, map(g, "b", 5, 3)});
    assert_int_equal(bad, VALUE_NONE);
    uint32_t n_nodes = g->n_nodes, n_values = g->n_values;
    graph_scope(g, "elsewhere");
    assert_int_equal(graph_apply(g, OP_UPSAMPLE2X, NULL, 1, &x), VALUE_NONE);
    assert_int_equal(graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){bad, bad}), VALUE_NONE);
    assert_int_equal(map(g, "late", 4, 4), VALUE_NONE);
    graph_keep(g, bad, "kept");
    graph_fail(g, ERROR_DATA, "another failure");
    graph_backward(g, false);
    graph_sgd(g, &(sgd_options){.momentum = 0.9});
    graph_drop_dead(g);
    assert_int_equal(g->n_nodes, n_nodes);
    assert_int_equal(g->n_values, n_values);
    EXPECT_SHAPE_ERROR(g, "2x6x6x3", "2x5x5x3");
}

static void names_are_unique_and_short(void **state)
{
    graph *g = *state;
    vector(g, "gamma", 3);
    vector(g, "gamma", 3);
    assert_int_equal(graph_status(g), ERROR_INTERNAL);
    assert_non_null(strstr(error_message(), "gamma"));
}

/* A gradient's name is longer than its parameter's: it must not be cut, or the optimiser would not find it. */
static void gradient_name_too_long(void **state)
{
    graph *g = *state;
    char name[GRAPH_NAME_BYTES];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1});
    value_id logits = graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){map(g, "x", 1, 4), weight(g, name, 5, 1, 4)});
    graph_apply(g, OP_CROSS_ENTROPY, &(op_attr){.count = 2, .weight = 1}, 2, (value_id[]){logits, target});
    assert_int_equal(graph_status(g), 0);
    graph_backward(g, false);
    assert_int_equal(graph_status(g), ERROR_INTERNAL);
    assert_non_null(strstr(error_message(), "too long"));
}

static value_id classifier(graph *g, double loss_weight)
{
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1});
    value_id logits =
        graph_apply(g, OP_LINEAR, NULL, 3,
                    (value_id[]){map(g, "x", 1, 4), weight(g, "fc.weight", 5, 1, 4), vector(g, "fc.bias", 5)});
    graph_apply(g, OP_CROSS_ENTROPY, &(op_attr){.count = 2, .weight = loss_weight}, 2, (value_id[]){logits, target});
    return logits;
}

static void backward_of_the_classifier(void **state)
{
    graph *g = *state;
    classifier(g, 1);
    graph_backward(g, false);
    graph_sgd(g, &(sgd_options){.weight_decay = 1});
    assert_int_equal(graph_status(g), 0);
    const op_id expected[] = {OP_LINEAR,       OP_CROSS_ENTROPY, OP_CROSS_ENTROPY_GRAD,
                              OP_LINEAR_WGRAD, OP_SGD_UPDATE,    OP_SGD_UPDATE};
    assert_int_equal(g->n_nodes, sizeof expected / sizeof *expected);
    for (uint32_t i = 0; i < g->n_nodes; i++)
        assert_int_equal(g->nodes[i].op, expected[i]);
    assert_true(g->nodes[4].attr.decay);
    assert_false(g->nodes[5].attr.decay);
    const tensor_desc *gradient = graph_desc(g, graph_find(g, "gradient/fc.weight"));
    assert_int_equal(gradient->kind, KIND_GRADIENT);
    assert_int_equal(gradient->layout, LAYOUT_OHWI);
    assert_int_equal(graph_desc(g, graph_find(g, "momentum/fc.bias"))->kind, KIND_STATE);
}

/* The rates of the weights follow one another before the updates; a vector has the global one. */
static void lars_has_a_rate_for_each_weight(void **state)
{
    graph *g = *state;
    value_id logits = classifier(g, 1), target = graph_find(g, "target");
    logits = graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){logits, weight(g, "last.weight", 5, 1, 5)});
    graph_apply(g, OP_CROSS_ENTROPY, &(op_attr){.count = 2, .weight = 1}, 2, (value_id[]){logits, target});
    graph_backward(g, false);
    graph_sgd(g, &(sgd_options){.momentum = 0.9, .weight_decay = 0.5, .lars_eta = 0.25});
    assert_int_equal(graph_status(g), 0);
    const op_id expected[] = {OP_LARS_RATE, OP_LARS_RATE, OP_SGD_UPDATE, OP_SGD_UPDATE, OP_SGD_UPDATE};
    const char *const rates[] = {"rate/fc.weight", "lr", "rate/last.weight"};
    const graph_node *last = &g->nodes[g->n_nodes - 5];
    for (int i = 0; i < 5; i++)
        assert_int_equal(last[i].op, expected[i]);
    assert_true(last[0].attr.eta == 0.25 && last[0].attr.weight_decay == 0.5);
    assert_int_equal(graph_run_length(g, g->n_nodes - 5), 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(last[2 + i].in[3], graph_find(g, rates[i]));
        assert_true(last[2 + i].attr.rate_first);
    }
}

static const graph_node *writer_of_ema(const graph *g, const char *name, unsigned op, int input)
{
    value_id ema = graph_find(g, name);
    assert_int_not_equal(ema, VALUE_NONE);
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == op && g->nodes[i].in[input] == ema)
            return &g->nodes[i];
    fail_msg("%s has no %s", name, op_name((op_id)op));
    return NULL;
}

/* The update writes the EMA along; a parameter without a gradient has one too, since evaluations of the EMA
 * ask for all. */
static void every_parameter_has_an_ema(void **state)
{
    graph *g = *state;
    classifier(g, 1);
    vector(g, "idle", 5);
    graph_backward(g, false);
    graph_sgd(g, &(sgd_options){.momentum = 0.9, .ema_decay = 0.75});
    assert_int_equal(graph_status(g), 0);
    assert_true(writer_of_ema(g, "ema/fc.weight", OP_SGD_UPDATE, 6)->attr.ema_decay == 0.75);
    assert_true(writer_of_ema(g, "ema/fc.bias", OP_SGD_UPDATE, 6)->attr.ema_decay == 0.75);
    assert_true(writer_of_ema(g, "ema/idle", OP_EMA_UPDATE, 1)->attr.momentum == 0.75);
    int ema = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        ema += g->nodes[i].op == OP_EMA_UPDATE;
    assert_int_equal(ema, 1);
}

static void loss_without_weight_has_no_backward(void **state)
{
    graph *g = *state;
    classifier(g, 0);
    uint32_t n_nodes = g->n_nodes;
    graph_backward(g, false);
    assert_int_equal(graph_status(g), 0);
    assert_int_equal(g->n_nodes, n_nodes);
}

static void parameter_used_twice(void **state)
{
    graph *g = *state;
    value_id w = weight(g, "shared", 4, 1, 4), x = map(g, "x", 1, 4);
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1});
    for (int i = 0; i < 2; i++)
        x = graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){x, w});
    graph_apply(g, OP_CROSS_ENTROPY, &(op_attr){.count = 2, .weight = 1}, 2, (value_id[]){x, target});
    graph_backward(g, false);
    assert_int_equal(graph_status(g), ERROR_INTERNAL);
    assert_non_null(strstr(error_message(), "shared"));
}

/* Running statistics are for evaluation: a backward through them is a mistake of the caller. */
static void inference_has_no_backward(void **state)
{
    graph *g = *state;
    value_id x = map(g, "x", 1, 4);
    x = graph_apply(g, OP_BN_INFERENCE, NULL, 5,
                    (value_id[]){x, vector(g, "m", 4), vector(g, "v", 4), vector(g, "c", 4), vector(g, "d", 4)});
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1});
    graph_apply(g, OP_CROSS_ENTROPY, &(op_attr){.count = 2, .weight = 1}, 2, (value_id[]){x, target});
    graph_backward(g, false);
    assert_int_equal(graph_status(g), ERROR_INTERNAL);
    assert_non_null(strstr(error_message(), "bn_inference"));
}

static void dead_code_spares_results_and_side_effects(void **state)
{
    graph *g = *state;
    value_id x = map(g, "x", 4, 3);
    value_id kept = graph_apply(g, OP_UPSAMPLE2X, NULL, 1, &x);
    value_id pooled = graph_apply(g, OP_GLOBAL_AVERAGE_POOL, NULL, 1, &kept);
    graph_apply(g, OP_UPSAMPLE2X, NULL, 1, &pooled);
    value_id sums = graph_apply(g, OP_BN_SUMS, NULL, 1, &x);
    graph_apply(g, OP_ALL_REDUCE, NULL, 1, &sums);
    graph_keep(g, kept, "result");
    graph_drop_dead(g);
    const op_id expected[] = {OP_UPSAMPLE2X, OP_BN_SUMS, OP_ALL_REDUCE};
    assert_int_equal(g->n_nodes, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(g->nodes[i].op, expected[i]);
}

static void dot_names_every_node(void **state)
{
    graph *g = *state;
    graph_keep(g, classifier(g, 1), "logits");
    graph_backward(g, false);
    graph_sgd(g, &(sgd_options){.momentum = 0.9});
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    graph_dot(g, out);
    fclose(out);
    assert_int_equal(strncmp(text, "digraph ", 8), 0);
    int depth = 0, quotes = 0;
    for (const char *c = text; *c; c++) {
        depth += (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
        quotes += *c == '"';
        assert_true(depth >= 0 && depth <= 2);
    }
    assert_int_equal(depth, 0);
    assert_int_equal(quotes % 2, 0);
    assert_null(strstr(text, "v0 "));
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        char declared[64], edge[64];
        snprintf(declared, sizeof declared, "  n%u [shape=ellipse, label=\"%s", i, op_name((op_id)g->nodes[i].op));
        assert_non_null(strstr(text, declared));
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            snprintf(edge, sizeof edge, "  v%u -> n%u;", g->nodes[i].in[k], i);
            assert_non_null(strstr(text, edge));
            snprintf(declared, sizeof declared, "  v%u [shape=box", g->nodes[i].in[k]);
            assert_non_null(strstr(text, declared));
        }
    }
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(add_of_other_size),
        TEST(residual_of_other_size),
        TEST(upsampled_normalisation_of_other_channels),
        TEST(convolution_of_other_channels),
        TEST(convolution_larger_than_the_map),
        TEST(bias_of_other_size),
        TEST(linear_of_other_features),
        TEST(concat_of_other_size),
        TEST(concat_linear_of_other_channels),
        TEST(patches_that_do_not_fill_the_map),
        TEST(loss_over_other_batches),
        TEST(loss_between_other_features),
        TEST(shapes_follow_from_inputs),
        TEST(first_failure_stays),
        TEST(names_are_unique_and_short),
        TEST(gradient_name_too_long),
        TEST(backward_of_the_classifier),
        TEST(lars_has_a_rate_for_each_weight),
        TEST(every_parameter_has_an_ema),
        TEST(loss_without_weight_has_no_backward),
        TEST(parameter_used_twice),
        TEST(inference_has_no_backward),
        TEST(dead_code_spares_results_and_side_effects),
        TEST(dot_names_every_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

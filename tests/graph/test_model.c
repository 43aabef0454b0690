/* The passes on whole networks: size and work against the published figures, what each rewrite replaces, and the
 * deployed model as dead-code elimination. */
#include "base/error.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "graph/rewrite.h"
#include "model/network.h"
#include "recipe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static model_options options_of(const char *network, bool teskd)
{
    const network_row *row = network_find(network);
    assert_non_null(row);
    model_options options = recipe_step(row).model;
    options.teskd = teskd;
    return options;
}

static void build(graph *g, const model_options *options, bool training, unsigned rewrites)
{
    model m;
    graph_init(g, DTYPE_F32);
    model_build(&m, g, options, &(step_shape){.training = training, .batch = 2, .global_batch = 2, .loss_batch = 2});
    model_free(&m);
    graph_rewrite(g, rewrites);
}

static void build_ok(graph *g, const char *network, bool teskd, bool training, unsigned rewrites)
{
    model_options options = options_of(network, teskd);
    build(g, &options, training, rewrites);
    if (graph_status(g))
        fail_msg("%s", error_message());
}

/* Of a layer or of a parameter: students' names begin so, and no backbone's. */
static bool is_student(const char *name)
{
    static const char *const prefixes[] = {"laterals.", "upsample.", "fuse_", "downsample", "fc_b", "loss.student"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static uint32_t count_op(const graph *g, op_id op)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        count += g->nodes[i].op == op;
    return count;
}

/* Multiply-adds for one image. */
static double macs(const graph *g, bool students)
{
    double sum = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (is_student(g->nodes[i].label) == students)
            sum += graph_node_macs(g, &g->nodes[i]) / 2;
    return sum;
}

static double weights(const graph *g, bool students)
{
    double sum = 0;
    for (value_id id = 1; id < g->n_values; id++)
        if (g->values[id].desc.kind == KIND_PARAMETER && is_student(g->values[id].name) == students)
            sum += (double)tensor_count(&g->values[id].desc);
    return sum;
}

static void assert_within(double value, double expected, double share)
{
    if (!(fabs(value - expected) <= share * expected))
        fail_msg("%g is not within %g of %g", value, share * expected, expected);
}

static void published_size_and_work(void **state)
{
    (void)state;
    graph g;
    build_ok(&g, "cifarresnet18", true, true, REWRITE_NONE);
    assert_within(macs(&g, false), 0.555e9, 0.01);
    assert_within(macs(&g, true), 1.485e9, 0.01);
    assert_within(weights(&g, false), 11.2e6, 0.01);
    assert_within(weights(&g, true), 25.8e6, 0.01);
    graph_free(&g);
}

/* The backward of a convolution or matrix product costs twice its forward, but for the first layer's input; that of the
 * two laterals with moments of their input as much again as these. */
static void backward_is_twice_the_forward(void **state)
{
    (void)state;
    graph g;
    build_ok(&g, "cifarresnet18", true, true, REWRITE_ALL);
    double forward = macs(&g, true) + macs(&g, false);
    double first = 32.0 * 32 * 64 * 27, moments = 32.0 * 32 * 64 * 64 + 16.0 * 16 * 128 * 128;
    graph_backward(&g, false);
    assert_int_equal(graph_status(&g), 0);
    assert_within(macs(&g, true) + macs(&g, false), 3 * forward - moments - first, 1e-12);
    graph_free(&g);
}

static void expect_counts(unsigned rewrites, const uint32_t (*expected)[2], int n)
{
    graph g;
    build_ok(&g, "cifarresnet18", true, true, rewrites);
    for (int i = 0; i < n; i++)
        if (count_op(&g, (op_id)expected[i][0]) != expected[i][1])
            fail_msg("%u nodes are %s, not %u", count_op(&g, (op_id)expected[i][0]), op_name((op_id)expected[i][0]),
                     expected[i][1]);
    graph_free(&g);
}

#define EXPECT_COUNTS(rewrites, ...)                                                                                   \
    expect_counts(rewrites, (const uint32_t[][2]){__VA_ARGS__},                                                        \
                  sizeof((const uint32_t[][2]){__VA_ARGS__}) / sizeof(uint32_t[2]))

/* 20 convolutions in the backbone; 4 laterals, 3 upsample, 3 fuse, 3 x 2 heads in the students. */
static void rewrites_change_the_nodes(void **state)
{
    (void)state;
    EXPECT_COUNTS(REWRITE_NONE, {OP_CONV2D, 36}, {OP_LINEAR, 4}, {OP_UPSAMPLE2X, 3}, {OP_CONCAT, 3}, {OP_ADD, 3},
                  {OP_BN_NORMALIZE, 36}, {OP_BN_RUNNING, 36});
    EXPECT_COUNTS(REWRITE_UPSAMPLE, {OP_CONV2D, 36}, {OP_LINEAR, 4}, {OP_UPSAMPLE2X, 3}, {OP_CONCAT, 3}, {OP_ADD, 3},
                  {OP_BN_NORMALIZE, 36});
    EXPECT_COUNTS(REWRITE_FUSE, {OP_CONV2D, 33}, {OP_CONCAT_LINEAR, 3}, {OP_FOLD_FUSE_WEIGHT, 3}, {OP_CONCAT, 0},
                  {OP_ADD, 0}, {OP_LINEAR, 4});
    EXPECT_COUNTS(REWRITE_PATCH, {OP_CONV2D, 33}, {OP_PATCHIFY, 3}, {OP_LINEAR, 7}, {OP_CONCAT, 3});
    EXPECT_COUNTS(REWRITE_UPSAMPLE_BN, {OP_UPSAMPLE2X, 3}, {OP_UPSAMPLE_BN, 0}, {OP_BN_NORMALIZE, 36});
    EXPECT_COUNTS(REWRITE_UPSAMPLE | REWRITE_UPSAMPLE_BN, {OP_UPSAMPLE2X, 0}, {OP_UPSAMPLE_BN, 3},
                  {OP_UPSAMPLE_BN_SUMS, 3}, {OP_BN_SUMS, 33}, {OP_BN_NORMALIZE, 33}, {OP_BN_RUNNING, 36});
    EXPECT_COUNTS(REWRITE_LINEAR_BN, {OP_CONV2D, 34}, {OP_CHANNEL_MOMENTS, 2}, {OP_LINEAR_BN, 2},
                  {OP_LINEAR_BN_SUMS, 2}, {OP_BN_SUMS, 34}, {OP_BN_NORMALIZE, 34}, {OP_BN_RUNNING, 36});
    EXPECT_COUNTS(REWRITE_ALL, {OP_CONV2D, 28}, {OP_PATCHIFY, 3}, {OP_LINEAR, 7}, {OP_CONCAT_LINEAR, 3},
                  {OP_FOLD_FUSE_WEIGHT, 3}, {OP_UPSAMPLE2X, 0}, {OP_UPSAMPLE_BN, 3}, {OP_CONCAT, 0}, {OP_ADD, 0},
                  {OP_LINEAR_BN, 2});
}

static void rewritten_nodes_keep_their_layers(void **state)
{
    (void)state;
    graph g;
    build_ok(&g, "cifarresnet18", true, true, REWRITE_ALL);
    for (uint32_t i = 0; i < g.n_nodes; i++)
        if (!g.nodes[i].label[0])
            fail_msg("a node %s is of no layer", op_name((op_id)g.nodes[i].op));
    graph_free(&g);
}

static const graph_node *writer_of(const graph *g, value_id value)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].n_out && g->nodes[i].out[0] == value)
            return &g->nodes[i];
    return NULL;
}

/* The convolution moves before the upsample, to a quarter of the positions, and keeps its label. */
static void upsample_rewrite_saves_three_quarters(void **state)
{
    (void)state;
    graph off, on;
    build_ok(&off, "cifarresnet18", true, true, REWRITE_NONE);
    build_ok(&on, "cifarresnet18", true, true, REWRITE_UPSAMPLE);
    for (uint32_t i = 0; i < on.n_nodes; i++) {
        if (on.nodes[i].op != OP_UPSAMPLE2X)
            continue;
        const graph_node *convolution = writer_of(&on, on.nodes[i].in[0]);
        assert_int_equal(convolution->op, OP_CONV2D);
        assert_int_equal(convolution->attr.kernel, 1);
        assert_true(convolution < &on.nodes[i]);
        const char *label = convolution->label;
        assert_int_equal(strncmp(label, "upsample.", 9), 0);
        assert_string_equal(label + strlen(label) - 2, ".1");
    }
    double positions = 8.0 * 8 + 16.0 * 16 + 32.0 * 32;
    assert_within(macs(&off, true) - macs(&on, true), 0.75 * positions * 512 * 512, 1e-12);
    graph_free(&off);
    graph_free(&on);
}

/* How many layers with weights have a bias, and how many running means are shifted by one. */
static void count_biases(const graph *g, int *layers, int *means)
{
    *layers = *means = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const graph_node *node = &g->nodes[i];
        *layers += (node->op == OP_CONV2D || node->op == OP_LINEAR) && node->n_in == 3;
        *means += node->op == OP_BN_RUNNING && node->n_in == 4;
    }
}

/* What is normalised by the batch loses its bias, and every other layer keeps it: the classifiers, and all layers of an
 * evaluation. */
static void bias_rewrite_moves_biases(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        int convolutions, classifiers;
    } expected[] = {{"vgg16", 13 + 6, 3 + 3}, {"cifarresnet18", 6, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        for (int training = 0; training < 2; training++) {
            graph g;
            int layers, means;
            build_ok(&g, expected[i].network, true, training, REWRITE_ALL);
            count_biases(&g, &layers, &means);
            assert_int_equal(layers, expected[i].classifiers + (training ? 0 : expected[i].convolutions));
            assert_int_equal(means, training ? expected[i].convolutions : 0);
            graph_free(&g);
        }
}

/* A rewrite must not lose a value that somebody else reads or that is a result. */
static void rewrites_spare_what_is_seen(void **state)
{
    (void)state;
    for (int kept = 0; kept < 2; kept++) {
        graph g;
        graph_init(&g, DTYPE_F32);
        value_id x = graph_input(&g, "x", DTYPE_F32, (const int32_t[]){1, 4, 4, 8});
        value_id w = graph_parameter(&g, "w", LAYOUT_OHWI, (const int32_t[]){8, 1, 1, 8});
        value_id large = graph_apply(&g, OP_UPSAMPLE2X, NULL, 1, &x);
        op_attr attr = {.kernel = 1, .stride = 1, .groups = 1};
        graph_keep(&g, graph_apply(&g, OP_CONV2D, &attr, 2, (value_id[]){large, w}), "y");
        if (kept)
            graph_keep(&g, large, "large");
        else
            graph_keep(&g, graph_apply(&g, OP_GLOBAL_AVERAGE_POOL, NULL, 1, &large), "pooled");
        uint32_t n_nodes = g.n_nodes;
        graph_rewrite(&g, REWRITE_ALL);
        assert_int_equal(graph_status(&g), 0);
        assert_int_equal(g.n_nodes, n_nodes);
        assert_int_equal(g.nodes[0].op, OP_UPSAMPLE2X);
        assert_int_equal(g.nodes[1].op, OP_CONV2D);
        graph_free(&g);
    }
}

/* upsample2x and batch normalisation of it, by the batch's or by running statistics; adds what `reads` besides. */
static void build_upsample_bn(graph *g, bool training, bool residual, void (*reads)(graph *g, value_id large))
{
    const int32_t vector[4] = {1, 1, 1, 8};
    op_attr attr = {.count = 64, .eps = 1e-5, .relu = true};
    graph_init(g, DTYPE_F32);
    value_id z = graph_input(g, "z", DTYPE_F32, (const int32_t[]){1, 4, 4, 8});
    value_id gamma = graph_parameter(g, "gamma", LAYOUT_C, vector), beta = graph_parameter(g, "beta", LAYOUT_C, vector);
    value_id mean = graph_state(g, "mean", LAYOUT_C, vector), var = graph_state(g, "var", LAYOUT_C, vector);
    value_id other = graph_input(g, "other", DTYPE_F32, (const int32_t[]){1, 8, 8, 8});
    value_id large = graph_apply(g, OP_UPSAMPLE2X, NULL, 1, &z), y;
    if (training) {
        value_id sums = graph_apply(g, OP_BN_SUMS, &attr, 1, &large);
        y = graph_apply(g, OP_BN_NORMALIZE, &attr, residual ? 5 : 4, (value_id[]){large, sums, gamma, beta, other});
    } else {
        y = graph_apply(g, OP_BN_INFERENCE, &attr, residual ? 6 : 5,
                        (value_id[]){large, mean, var, gamma, beta, other});
    }
    graph_keep(g, y, "y");
    if (reads)
        reads(g, large);
    graph_rewrite(g, REWRITE_ALL);
    assert_int_equal(graph_status(g), 0);
}

static void keeps(graph *g, value_id large)
{
    graph_keep(g, large, "large");
}

static void pools(graph *g, value_id large)
{
    graph_keep(g, graph_apply(g, OP_GLOBAL_AVERAGE_POOL, NULL, 1, &large), "pooled");
}

static void upsample_bn_spares_what_is_seen(void **state)
{
    (void)state;
    for (int training = 0; training < 2; training++) {
        graph g;
        build_upsample_bn(&g, training, false, NULL);
        assert_int_equal(g.n_nodes, training ? 2 : 1);
        assert_int_equal(g.nodes[0].op, training ? OP_UPSAMPLE_BN_SUMS : OP_UPSAMPLE_BN_INFERENCE);
        assert_int_equal(g.nodes[0].in[0], graph_find(&g, "z"));
        const graph_node *last = &g.nodes[g.n_nodes - 1];
        assert_int_equal(last->op, training ? OP_UPSAMPLE_BN : OP_UPSAMPLE_BN_INFERENCE);
        assert_int_equal(last->in[0], graph_find(&g, "z"));
        assert_int_equal(last->out[0], graph_find(&g, "y"));
        assert_true(last->attr.relu && last->attr.count == 64);
        graph_free(&g);
        for (int seen = 0; seen < 3; seen++) {
            build_upsample_bn(&g, training, seen == 2, seen == 0 ? keeps : seen == 1 ? pools : NULL);
            assert_int_equal(g.nodes[0].op, OP_UPSAMPLE2X);
            assert_int_equal(count_op(&g, OP_UPSAMPLE_BN) + count_op(&g, OP_UPSAMPLE_BN_INFERENCE), 0);
            graph_free(&g);
        }
    }
}

/* Parameters by name and shape, and the first convolution's input: nobody else sees the channels of zeros. */
static void check_padded(const char *network)
{
    graph own, padded;
    model m;
    model_options options = options_of(network, true);
    build(&own, &options, true, REWRITE_ALL);
    options.padded_channels = 8;
    graph_init(&padded, DTYPE_F32);
    model_build(&m, &padded, &options, &(step_shape){.training = true, .batch = 2, .global_batch = 2, .loss_batch = 2});
    assert_int_equal(graph_desc(&padded, m.input)->dim[3], 8);
    model_free(&m);
    graph_rewrite(&padded, REWRITE_ALL);
    graph_backward(&own, false);
    graph_backward(&padded, false);
    assert_int_equal(graph_status(&own), 0);
    assert_int_equal(graph_status(&padded), 0);
    for (value_id id = 1; id < own.n_values; id++) {
        const tensor_desc *desc = graph_desc(&own, id);
        if (desc->kind != KIND_PARAMETER && desc->kind != KIND_GRADIENT)
            continue;
        value_id other = graph_find(&padded, own.values[id].name);
        assert_true(other != VALUE_NONE);
        assert_memory_equal(graph_desc(&padded, other), desc, sizeof *desc);
    }
    assert_int_equal(weights(&padded, false), weights(&own, false));
    assert_int_equal(count_op(&padded, OP_PAD_CHANNELS), 2);
    assert_int_equal(count_op(&padded, OP_CHANNEL_SLICE) - count_op(&own, OP_CHANNEL_SLICE), 1);
    assert_int_equal(count_op(&padded, OP_CONV2D_DGRAD), count_op(&own, OP_CONV2D_DGRAD));
    graph_free(&own);
    graph_free(&padded);
}

static void padding_leaves_parameters_alone(void **state)
{
    (void)state;
    for (int row = 0; network_at(row); row++)
        check_padded(network_at(row)->name);
}

static void check_value(const graph *g, const char *name, value_kind kind, dtype type, const int32_t dim[4])
{
    value_id id = graph_find(g, name);
    if (id == VALUE_NONE)
        fail_msg("there is no %s", name);
    const tensor_desc *desc = graph_desc(g, id);
    assert_int_equal(desc->kind, kind);
    assert_int_equal(desc->dtype, type);
    assert_memory_equal(desc->dim, dim, sizeof desc->dim);
}

static void images_come_in_three_ways(void **state)
{
    (void)state;
    static const char *const bytes_of[] = {[INPUT_BYTES] = "pixels", [INPUT_RESIDENT] = "data/train"};
    for (input_kind kind = INPUT_REAL; kind <= INPUT_RESIDENT; kind++)
        for (int32_t padded = 0; padded <= 8; padded += 8) {
            graph g;
            model m;
            model_options options = options_of("cifarresnet8", true);
            const step_input input = {.kind = kind, .set = "data/train", .set_images = 7, .crop_padding = 4};
            const step_shape shape = {.batch = 2, .global_batch = 2, .loss_batch = 2, .input = input};
            options.padded_channels = padded;
            graph_init(&g, DTYPE_F32);
            model_build(&m, &g, &options, &shape);
            assert_int_equal(graph_status(&g), 0);
            assert_int_equal(graph_desc(&g, m.input)->dim[3], padded ? padded : 3);
            model_free(&m);
            assert_int_equal(graph_find(&g, "input") != VALUE_NONE, kind == INPUT_REAL);
            assert_int_equal(graph_find(&g, "pixels") != VALUE_NONE, kind == INPUT_BYTES);
            assert_int_equal(count_op(&g, OP_IMAGES), kind != INPUT_REAL);
            if (kind != INPUT_REAL) {
                const int32_t images = kind == INPUT_BYTES ? 2 : 7;
                check_value(&g, bytes_of[kind], kind == INPUT_BYTES ? KIND_INPUT : KIND_STATE, DTYPE_U8,
                            (const int32_t[]){images, 32, 32, 3});
                check_value(&g, "choice", KIND_INPUT, DTYPE_I32, (const int32_t[]){2, 1, 1, 4});
                check_value(&g, "data/train/table", KIND_STATE, DTYPE_F32, (const int32_t[]){1, 256, 1, 3});
                assert_int_equal(g.nodes[0].op, OP_IMAGES);
                assert_int_equal(g.nodes[0].attr.pad, 4);
            }
            graph_free(&g);
        }
}

static void keep_only(graph *g, const char *name)
{
    for (value_id id = 1; id < g->n_values; id++)
        g->values[id].keep = strcmp(g->values[id].name, name) == 0;
    graph_drop_dead(g);
}

static void deployed_model_has_no_students(void **state)
{
    (void)state;
    graph deployed, plain;
    build_ok(&deployed, "cifarresnet18", true, false, REWRITE_ALL);
    build_ok(&plain, "cifarresnet18", false, false, REWRITE_ALL);
    keep_only(&deployed, "logits/teacher");
    keep_only(&plain, "logits/teacher");
    for (uint32_t i = 0; i < deployed.n_nodes; i++)
        if (is_student(deployed.nodes[i].label))
            fail_msg("%s of %s is left", op_name((op_id)deployed.nodes[i].op), deployed.nodes[i].label);
    assert_int_equal(deployed.n_nodes, plain.n_nodes);
    for (uint32_t i = 0; i < plain.n_nodes; i++) {
        assert_int_equal(deployed.nodes[i].op, plain.nodes[i].op);
        assert_string_equal(deployed.nodes[i].label, plain.nodes[i].label);
    }
    assert_within(macs(&deployed, false), 0.555e9, 0.01);
    graph_free(&deployed);
    graph_free(&plain);
}

/* Every parameter is trained; every convolution but the first gives its input a gradient. */
static void backward_reaches_every_parameter(void **state)
{
    (void)state;
    for (int row = 0; network_at(row); row++)
        for (int teskd = 0; teskd < 2; teskd++) {
            graph g;
            build_ok(&g, network_at(row)->name, teskd, true, REWRITE_NONE);
            graph_backward(&g, true);
            graph_sgd(&g, &(sgd_options){.momentum = 0.9});
            assert_int_equal(graph_status(&g), 0);
            uint32_t parameters = 0;
            for (value_id id = 1; id < g.n_values; id++)
                parameters += g.values[id].desc.kind == KIND_PARAMETER;
            assert_int_equal(count_op(&g, OP_SGD_UPDATE), parameters);
            assert_int_equal(count_op(&g, OP_CONV2D_DGRAD), count_op(&g, OP_CONV2D) - 1);
            assert_int_equal(count_op(&g, OP_BN_GRAD), count_op(&g, OP_BN_NORMALIZE));
            graph_free(&g);
        }
}

/* Running statistics are a side effect, so that the gradients of dead code elimination lose nothing in training. */
static void nothing_is_dead_in_training(void **state)
{
    (void)state;
    graph g;
    build_ok(&g, "cifarresnet18", true, true, REWRITE_ALL);
    graph_backward(&g, false);
    graph_sgd(&g, &(sgd_options){.momentum = 0.9});
    uint32_t n_nodes = g.n_nodes;
    graph_drop_dead(&g);
    assert_int_equal(graph_status(&g), 0);
    assert_int_equal(g.n_nodes, n_nodes);
    memory_plan plan;
    assert_int_equal(plan_make(&plan, &g), 0);
    assert_true(plan.arena_bytes[KIND_ACTIVATION] < plan.activation_bytes_unpacked);
    assert_true(plan.arena_bytes[KIND_GRADIENT] >= 4 * (size_t)(weights(&g, false) + weights(&g, true)));
    plan_free(&plan);
    graph_free(&g);
}

static void misfit_settings_are_refused(void **state)
{
    (void)state;
    graph g;
    model_options options = options_of("cifarresnet8", true);
    options.image_height = options.image_width = 20; /* stages of 20, 10, 5 and 3: 2 x 3 is not 5 */
    build(&g, &options, true, REWRITE_ALL);
    assert_int_equal(graph_status(&g), ERROR_SHAPE);
    assert_non_null(strstr(error_message(), "fuse_3"));
    assert_non_null(strstr(error_message(), "2x6x6x128"));
    assert_non_null(strstr(error_message(), "2x5x5x128"));
    graph_free(&g);
    assert_null(network_find("cifarresnet19"));
}

/* Whatever the students' width, their features can be compared with the teacher's. */
static void students_of_any_width(void **state)
{
    (void)state;
    for (int32_t width = 24; width <= 200; width += 88) {
        graph g;
        model_options options = options_of("cifarresnet8", true);
        options.student_width = width;
        build(&g, &options, true, REWRITE_ALL);
        graph_backward(&g, false);
        assert_int_equal(graph_status(&g), 0);
        assert_int_equal(graph_desc(&g, graph_find(&g, "laterals.0.0.weight"))->dim[0], width);
        for (int head = 0; head < HEADS; head++) {
            char name[GRAPH_NAME_BYTES];
            snprintf(name, sizeof name, "features/%s", head_names[head]);
            assert_int_equal(graph_desc(&g, graph_find(&g, name))->dim[3], 128);
        }
        graph_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_size_and_work),
        cmocka_unit_test(backward_is_twice_the_forward),
        cmocka_unit_test(rewrites_change_the_nodes),
        cmocka_unit_test(rewritten_nodes_keep_their_layers),
        cmocka_unit_test(upsample_rewrite_saves_three_quarters),
        cmocka_unit_test(bias_rewrite_moves_biases),
        cmocka_unit_test(rewrites_spare_what_is_seen),
        cmocka_unit_test(upsample_bn_spares_what_is_seen),
        cmocka_unit_test(deployed_model_has_no_students),
        cmocka_unit_test(backward_reaches_every_parameter),
        cmocka_unit_test(nothing_is_dead_in_training),
        cmocka_unit_test(students_of_any_width),
        cmocka_unit_test(misfit_settings_are_refused),
        cmocka_unit_test(padding_leaves_parameters_alone),
        cmocka_unit_test(images_come_in_three_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

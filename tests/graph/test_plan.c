/* Random step graphs against the memory plan. The plan is played, not re-derived: every node writes the ids of its
 * outputs over their bytes and looks whether the bytes of its inputs still hold the ids of its inputs. One thread. */
#include "graph/graph.h"
#include "graph/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GRAPHS = 1000, NODES_MAX = 60, CELL_BYTES = 4 };

static const int in_place_input[OP_COUNT] = {
#define OP(id, name, min_in, max_in, max_out, in_place, ...) [id] = in_place,
#include "graph/ops.def"
#undef OP
};

/* One cell for each four bytes of an arena: the id of the value last written there. */
typedef struct {
    const graph *g;
    const memory_plan *plan;
    value_id *cells[KIND_COUNT];
} playback;

static bool has_memory(const playback *p, value_id id)
{
    return id != VALUE_NONE && p->plan->placed[id];
}

static size_t first_cell(const playback *p, value_id id)
{
    return p->plan->offset[id] / CELL_BYTES;
}

static size_t cell_count(const playback *p, value_id id)
{
    return tensor_bytes(graph_desc(p->g, id)) / CELL_BYTES;
}

static void write_value(playback *p, value_id id)
{
    uint8_t kind = graph_desc(p->g, id)->kind;
    size_t offset = p->plan->offset[id], bytes = tensor_bytes(graph_desc(p->g, id));
    assert_int_equal(offset % PLAN_ALIGNMENT, 0);
    assert_true(offset + bytes <= p->plan->arena_bytes[kind]);
    value_id *cells = p->cells[kind] + first_cell(p, id);
    for (size_t i = 0; i < cell_count(p, id); i++)
        cells[i] = id;
}

static void check_value(const playback *p, value_id id, const char *when)
{
    const value_id *cells = p->cells[graph_desc(p->g, id)->kind] + first_cell(p, id);
    for (size_t i = 0; i < cell_count(p, id); i++)
        if (cells[i] != id)
            fail_msg("%s: value %u was overwritten by value %u", when, id, cells[i]);
}

static bool overlap(const playback *p, value_id a, value_id b)
{
    if (graph_desc(p->g, a)->kind != graph_desc(p->g, b)->kind)
        return false;
    return first_cell(p, a) < first_cell(p, b) + cell_count(p, b) &&
           first_cell(p, b) < first_cell(p, a) + cell_count(p, a);
}

/* A node may write over what it reads only where its op says so, and then over the whole of it. */
static void check_overlap(const playback *p, const graph_node *node, int out, int in)
{
    value_id y = node->out[out], x = node->in[in];
    if (y == VALUE_NONE || x == VALUE_NONE || !overlap(p, x, y))
        return;
    int allowed = in_place_input[node->op];
    if (out != 0 || allowed < 0 || x != node->in[allowed])
        fail_msg("%s writes its output %d over its input %d", op_name((op_id)node->op), out, in);
    assert_int_equal(first_cell(p, x), first_cell(p, y));
    assert_int_equal(cell_count(p, x), cell_count(p, y));
}

static void play_node(playback *p, const graph_node *node)
{
    for (int k = 0; k < node->n_in; k++)
        if (has_memory(p, node->in[k]))
            check_value(p, node->in[k], "before it is read");
    for (int out = 0; out < node->n_out; out++)
        for (int in = 0; in < node->n_in; in++)
            check_overlap(p, node, out, in);
    for (int k = 0; k < node->n_out; k++)
        if (node->out[k] != VALUE_NONE)
            write_value(p, node->out[k]);
    for (int k = 0; k < node->n_out; k++)
        if (node->out[k] != VALUE_NONE)
            check_value(p, node->out[k], "beside the other outputs of its node");
}

static bool is_written_by_caller(const graph *g, value_id id)
{
    uint8_t kind = graph_desc(g, id)->kind;
    return kind == KIND_INPUT || kind == KIND_PARAMETER || kind == KIND_STATE;
}

static void check_gradient_order(const graph *g, const memory_plan *plan)
{
    size_t end = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++) {
            value_id id = g->nodes[i].out[k];
            if (graph_desc(g, id)->kind != KIND_GRADIENT)
                continue;
            assert_true(plan->offset[id] >= end);
            assert_true(plan->offset[id] - end < PLAN_ALIGNMENT);
            end = plan->offset[id] + tensor_bytes(graph_desc(g, id));
        }
    assert_true(plan->arena_bytes[KIND_GRADIENT] - end < PLAN_ALIGNMENT);
}

static void check_plan(const graph *g)
{
    memory_plan plan;
    assert_int_equal(plan_make(&plan, g), 0);
    assert_true(plan.arena_bytes[KIND_ACTIVATION] <= plan.activation_bytes_unpacked);
    playback p = {.g = g, .plan = &plan};
    for (int kind = 0; kind < KIND_COUNT; kind++)
        p.cells[kind] = calloc(plan.arena_bytes[kind] / CELL_BYTES + 1, sizeof **p.cells);
    for (value_id id = 1; id < g->n_values; id++)
        if (is_written_by_caller(g, id))
            write_value(&p, id);
    for (uint32_t i = 0; i < g->n_nodes; i++)
        play_node(&p, &g->nodes[i]);
    for (value_id id = 1; id < g->n_values; id++)
        if (is_written_by_caller(g, id) ||
            (plan.placed[id] && (g->values[id].keep || graph_desc(g, id)->kind == KIND_GRADIENT)))
            check_value(&p, id, "at the end of the step");
    check_gradient_order(g, &plan);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        free(p.cells[kind]);
    plan_free(&plan);
}

/* Builds random graphs; `pool` holds the feature maps that later nodes may read. */
typedef struct {
    graph g;
    uint64_t state;
    value_id pool[NODES_MAX + 2];
    uint32_t n_pool;
    uint32_t n_named;
} generator;

static uint32_t draw(generator *r, uint32_t below)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33) % below;
}

static value_id any_map(generator *r)
{
    /* Mostly the newest, so that long chains and in-place pairs occur; sometimes one from long ago. */
    uint32_t reach = draw(r, 3) ? (r->n_pool < 3 ? r->n_pool : 3) : r->n_pool;
    return r->pool[r->n_pool - 1 - draw(r, reach)];
}

static value_id map_like(generator *r, value_id like)
{
    for (int tries = 0; tries < 8; tries++) {
        value_id other = any_map(r);
        if (memcmp(graph_desc(&r->g, other)->dim, graph_desc(&r->g, like)->dim, sizeof(int32_t[4])) == 0)
            return other;
    }
    return like;
}

static value_id new_parameter(generator *r, tensor_layout layout, int32_t rows, int32_t columns)
{
    char name[32];
    snprintf(name, sizeof name, "parameter%u", r->n_named++);
    return graph_parameter(&r->g, name, layout, (const int32_t[]){rows, 1, 1, columns});
}

static value_id random_bn(generator *r, value_id x)
{
    int32_t c = graph_desc(&r->g, x)->dim[3];
    value_id in[6] = {x};
    for (int k = 1; k < 5; k++)
        in[k] = new_parameter(r, LAYOUT_C, 1, c);
    in[5] = draw(r, 2) ? map_like(r, x) : VALUE_NONE;
    return graph_apply(&r->g, OP_BN_INFERENCE, &(op_attr){.relu = true}, in[5] ? 6 : 5, in);
}

static value_id random_add(generator *r, value_id x)
{
    value_id in[4] = {x};
    int n = 2 + (int)draw(r, 3);
    for (int k = 1; k < n; k++)
        in[k] = map_like(r, x);
    return graph_apply(&r->g, OP_ADD, NULL, n, in);
}

static value_id random_linear(generator *r, value_id x)
{
    int32_t columns = graph_desc(&r->g, x)->dim[3], rows = 1 + (int32_t)draw(r, 9);
    value_id weight = new_parameter(r, LAYOUT_OI, rows, columns);
    return graph_apply(&r->g, OP_LINEAR, NULL, 2, (value_id[]){x, weight});
}

/* Two gradients from one node, and sums reduced in place: what a backward adds to a plan. */
static void random_gradient(generator *r, value_id x)
{
    value_id dy = random_linear(r, x);
    tensor_desc weight = {.dim = {graph_desc(&r->g, dy)->dim[3], 1, 1, graph_desc(&r->g, x)->dim[3]},
                          .dtype = (uint8_t)r->g.real,
                          .layout = LAYOUT_OI,
                          .kind = KIND_GRADIENT};
    tensor_desc bias = {
        .dim = {1, 1, 1, weight.dim[0]}, .dtype = (uint8_t)r->g.real, .layout = LAYOUT_C, .kind = KIND_GRADIENT};
    value_id out[2] = {graph_value_new(&r->g, weight, NULL), graph_value_new(&r->g, bias, NULL)};
    graph_emit(&r->g, OP_LINEAR_WGRAD, NULL, 2, (value_id[]){x, dy}, draw(r, 2) ? 2 : 1, out);
}

/* bn_grad works in place on its last input. */
static value_id random_bn_grad(generator *r, value_id x)
{
    int32_t c = graph_desc(&r->g, x)->dim[3];
    value_id sums = graph_apply(&r->g, OP_BN_SUMS, NULL, 1, &x);
    graph_emit(&r->g, OP_ALL_REDUCE, NULL, 1, &sums, 0, NULL);
    value_id gamma = new_parameter(r, LAYOUT_C, 1, c), beta = new_parameter(r, LAYOUT_C, 1, c);
    value_id dx = graph_value_new(&r->g, *graph_desc(&r->g, x), NULL);
    graph_emit(&r->g, OP_BN_GRAD, NULL, 6, (value_id[]){x, sums, gamma, beta, sums, map_like(r, x)}, 1, &dx);
    return dx;
}

static value_id random_node(generator *r)
{
    value_id x = any_map(r);
    const tensor_desc *desc = graph_desc(&r->g, x);
    switch (draw(r, 9)) {
    case 0:
    case 1:
        return random_add(r, x);
    case 2:
    case 3:
        return random_bn(r, x);
    case 4:
        return desc->dim[1] < 16 ? graph_apply(&r->g, OP_UPSAMPLE2X, NULL, 1, &x) : VALUE_NONE;
    case 5:
        return desc->dim[3] < 64 ? graph_apply(&r->g, OP_CONCAT, NULL, 2, (value_id[]){x, map_like(r, x)}) : VALUE_NONE;
    case 6:
        return random_linear(r, x);
    case 7:
        return random_bn_grad(r, x);
    default:
        random_gradient(r, x);
        return graph_apply(&r->g, OP_GLOBAL_AVERAGE_POOL, NULL, 1, &x);
    }
}

static void random_graph(generator *r, uint64_t seed)
{
    *r = (generator){.state = seed * 0x9E3779B97F4A7C15u + 1};
    graph_init(&r->g, seed % 2 ? DTYPE_F64 : DTYPE_F32);
    int32_t side = 1 + (int32_t)draw(r, 5);
    r->pool[r->n_pool++] = graph_input(&r->g, "input", (uint8_t)r->g.real, (const int32_t[]){2, side, side, 3});
    uint32_t nodes = 1 + draw(r, NODES_MAX);
    for (uint32_t i = 0; i < nodes; i++) {
        value_id y = random_node(r);
        if (y == VALUE_NONE)
            continue;
        char name[32];
        snprintf(name, sizeof name, "kept%u", y);
        if (draw(r, 6) == 0)
            graph_keep(&r->g, y, name);
        r->pool[r->n_pool++] = y;
    }
    if (draw(r, 2))
        graph_drop_dead(&r->g);
    assert_int_equal(graph_status(&r->g), 0);
}

static void random_graphs_keep_their_values(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        generator r;
        random_graph(&r, seed);
        check_plan(&r.g);
        graph_free(&r.g);
    }
}

static value_id chain(graph *g, value_id x, int length)
{
    const int32_t vector[4] = {1, 1, 1, 5};
    for (int i = 0; i < length; i++) {
        value_id in[5] = {x};
        for (int k = 1; k < 5; k++) {
            char name[32];
            snprintf(name, sizeof name, "p%d.%d", i, k);
            in[k] = graph_parameter(g, name, LAYOUT_C, vector);
        }
        x = graph_apply(g, OP_BN_INFERENCE, NULL, 5, in);
    }
    return x;
}

/* The input is not an activation, so the first node writes a buffer and the rest work in it. */
static void chain_in_place_takes_one_buffer(void **state)
{
    (void)state;
    graph g;
    graph_init(&g, DTYPE_F64);
    value_id x = graph_input(&g, "input", DTYPE_F64, (const int32_t[]){2, 4, 4, 5});
    graph_keep(&g, chain(&g, x, 6), "result");
    memory_plan plan;
    assert_int_equal(plan_make(&plan, &g), 0);
    assert_int_equal(plan.arena_bytes[KIND_ACTIVATION], 2 * 4 * 4 * 5 * sizeof(double));
    plan_free(&plan);
    check_plan(&g);
    graph_free(&g);
}

/* Of three feature maps in a row only two live at a time. */
static void dead_maps_are_reused(void **state)
{
    (void)state;
    graph g;
    graph_init(&g, DTYPE_F32);
    const int32_t dim[4] = {1, 4, 4, 16};
    value_id x = graph_input(&g, "input", DTYPE_F32, dim);
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "weight%d", i);
        value_id weight = graph_parameter(&g, name, LAYOUT_OI, (const int32_t[]){16, 1, 1, 16});
        x = graph_apply(&g, OP_LINEAR, NULL, 2, (value_id[]){x, weight});
    }
    memory_plan plan;
    assert_int_equal(plan_make(&plan, &g), 0);
    assert_int_equal(plan.arena_bytes[KIND_ACTIVATION], 2 * 4 * 4 * 16 * sizeof(float));
    assert_int_equal(plan.activation_bytes_unpacked, 5 * 4 * 4 * 16 * sizeof(float));
    plan_free(&plan);
    check_plan(&g);
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_keep_their_values),
        cmocka_unit_test(chain_in_place_takes_one_buffer),
        cmocka_unit_test(dead_maps_are_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

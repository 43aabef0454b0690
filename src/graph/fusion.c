/* Owns the pass that gives nodes further results. Invariant: every value has the writer that it had, or one before
 * that. One thread. */
#include "graph/fusion.h"

#include <string.h>

static bool gives_sums(const graph_node *node)
{
    return (node->op == OP_CONV2D && node->n_in == 2) || node->op == OP_CONCAT_LINEAR;
}

/* The convolution without bias, or product of two operands, that writes the value and no sums yet; else NULL. */
static graph_node *product_of(graph *g, value_id value, uint32_t before)
{
    for (uint32_t i = 0; i < before; i++)
        if (g->nodes[i].n_out > 0 && g->nodes[i].out[0] == value)
            return gives_sums(&g->nodes[i]) && g->nodes[i].n_out == 1 ? &g->nodes[i] : NULL;
    return NULL;
}

static bool fuse_sums(graph *g, const graph_node *node, uint32_t before)
{
    graph_node *product = node->op == OP_BN_SUMS ? product_of(g, node->in[0], before) : NULL;
    if (!product)
        return false;
    product->out[product->n_out++] = node->out[0];
    return true;
}

/* The max_pool of that feature map and those windows; else NULL. */
static graph_node *pool_of(graph *g, value_id map, const op_attr *windows, uint32_t before)
{
    for (uint32_t i = 0; i < before; i++) {
        graph_node *node = &g->nodes[i];
        const op_attr *a = &node->attr;
        if (node->op == OP_MAX_POOL && node->in[0] == map && a->kernel == windows->kernel &&
            a->stride == windows->stride && a->pad == windows->pad)
            return node;
    }
    return NULL;
}

static void fuse_choice(graph *g, uint32_t index)
{
    enum { MAX_KERNEL = 15 }; /* so that a byte is enough */
    graph_node *gradient = &g->nodes[index];
    graph_node *pool = pool_of(g, gradient->in[0], &gradient->attr, index);
    if (!pool || gradient->attr.kernel > MAX_KERNEL)
        return;
    if (pool->n_out == 1) {
        tensor_desc desc = *graph_desc(g, pool->out[0]);
        desc.dtype = DTYPE_U8;
        pool->out[pool->n_out++] = graph_value_new(g, desc, NULL);
    }
    gradient->in[0] = VALUE_NONE;
    gradient->in[2] = pool->out[1];
    gradient->n_in = 3;
}

static bool sums_gradient(unsigned op)
{
    return op == OP_BN_GRAD_SUMS || op == OP_UPSAMPLE_BN_GRAD_SUMS || op == OP_LINEAR_BN_GRAD_SUMS;
}

/* The node that writes those sums of a gradient and nothing of them yet; else NULL. */
static graph_node *gradient_sums_of(graph *g, value_id sums, uint32_t before)
{
    for (uint32_t i = 0; i < before; i++) {
        graph_node *node = &g->nodes[i];
        if (sums_gradient(node->op) && node->out[0] == sums)
            return node->n_out <= 2 ? node : NULL;
    }
    return NULL;
}

static bool fuse_parameter_gradients(graph *g, const graph_node *node, uint32_t before)
{
    graph_node *sums = node->op == OP_BN_PARAM_GRAD ? gradient_sums_of(g, node->in[0], before) : NULL;
    if (!sums)
        return false;
    sums->out[2] = node->out[0];
    sums->out[3] = node->out[1];
    sums->n_out = 4;
    return true;
}

/* Nodes whose results another one can give go away. */
static void move_results(graph *g)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_nodes && !g->status; i++) {
        const graph_node node = g->nodes[i];
        if (fuse_sums(g, &node, kept) || fuse_parameter_gradients(g, &node, kept))
            continue;
        g->nodes[kept++] = node;
    }
    if (!g->status)
        g->n_nodes = kept;
}

void graph_fuse(graph *g)
{
    move_results(g);
    for (uint32_t i = 0; i < g->n_nodes && !g->status; i++)
        if (g->nodes[i].op == OP_MAX_POOL_GRAD)
            fuse_choice(g, i);
}

/* Owns the exact rewrites, each as pattern, guard and replacement.
 * Invariant: a rewritten node still writes the value its readers know. One thread. */
#include "graph/rewrite.h"
#include "base/error.h"
#include "graph/edit.h"

#include <string.h>

/* The node that writes a value, or NULL for inputs and parameters. */
static graph_node *writer_of(graph *g, value_id value)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] == value)
                return &g->nodes[i];
    return NULL;
}

/* The node of that op which writes a value that nobody but one reader sees; else NULL. */
static graph_node *only_reader_reads(graph *g, value_id value, op_id op)
{
    graph_node *writer = writer_of(g, value);
    bool hidden = !g->values[value].keep && graph_count_uses(g, value) == 1;
    return writer && writer->op == op && hidden ? writer : NULL;
}

/* Another op takes the node's place, in its layer. */
static void become(graph_node *node, const graph_node *other)
{
    char label[GRAPH_NAME_BYTES];
    memcpy(label, node->label, sizeof label);
    *node = *other;
    memcpy(node->label, label, sizeof label);
}

static bool is_pointwise(const graph_node *node)
{
    const op_attr *a = &node->attr;
    return node->op == OP_CONV2D && a->kernel == 1 && a->stride == 1 && a->pad == 0 && a->groups == 1 &&
           node->n_in == 2;
}

static void rewrite_upsample(graph *g, graph_node *convolution)
{
    graph_node *upsample = is_pointwise(convolution) ? only_reader_reads(g, convolution->in[0], OP_UPSAMPLE2X) : NULL;
    if (!upsample)
        return;
    const tensor_desc *small = graph_desc(g, upsample->in[0]);
    tensor_desc desc = *graph_desc(g, convolution->out[0]);
    memcpy(desc.dim, small->dim, 3 * sizeof *desc.dim);
    value_id product = graph_value_new(g, desc, NULL);

    value_id y = convolution->out[0];
    const graph_node was_convolution = *convolution, was_upsample = *upsample;
    *upsample = was_convolution;
    upsample->in[0] = was_upsample.in[0];
    upsample->out[0] = product;
    *convolution = was_upsample;
    convolution->in[0] = product;
    convolution->out[0] = y;
}

static void rewrite_fuse(graph *g, graph_node *convolution)
{
    graph_node *concat = is_pointwise(convolution) ? only_reader_reads(g, convolution->in[0], OP_CONCAT) : NULL;
    graph_node *sum = concat ? only_reader_reads(g, concat->in[0], OP_ADD) : NULL;
    if (!sum || sum->n_in != 2)
        return;
    value_id u = concat->in[1];
    if (sum->in[0] != u && sum->in[1] != u)
        return;
    value_id l = sum->in[0] == u ? sum->in[1] : sum->in[0];
    value_id weight = convolution->in[1];
    tensor_desc desc = *graph_desc(g, weight);
    desc.kind = KIND_ACTIVATION;
    value_id folded = graph_value_new(g, desc, NULL);

    become(concat, &(graph_node){.op = OP_FOLD_FUSE_WEIGHT, .n_in = 1, .n_out = 1, .in = {weight}, .out = {folded}});
    become(convolution,
           &(graph_node){
               .op = OP_CONCAT_LINEAR, .n_in = 3, .n_out = 1, .in = {u, l, folded}, .out = {convolution->out[0]}});
}

static bool is_patch_convolution(const graph *g, const graph_node *node)
{
    const op_attr *a = &node->attr;
    const tensor_desc *x = graph_desc(g, node->in[0]);
    return node->op == OP_CONV2D && a->kernel > 1 && a->kernel == a->stride && a->pad == 0 && a->groups == 1 &&
           x->dim[1] % a->kernel == 0 && x->dim[2] % a->kernel == 0;
}

/* Returns true when a node was put in before `index`. */
static bool rewrite_patch(graph *g, uint32_t index)
{
    if (!is_patch_convolution(g, &g->nodes[index]))
        return false;
    const graph_node convolution = g->nodes[index];
    graph_scope(g, "%s", convolution.label);
    op_attr attr = {.kernel = convolution.attr.kernel};
    value_id patches = graph_apply(g, OP_PATCHIFY, &attr, 1, convolution.in);
    if (g->status)
        return false;
    graph_move_last(g, index);
    graph_node *linear = &g->nodes[index + 1];
    linear->op = OP_LINEAR;
    linear->attr = (op_attr){0};
    linear->in[0] = patches;
    return true;
}

/* The upsample whose feature map x feeds nothing but batch normalisation; else NULL. */
static const graph_node *normalized_upsample(graph *g, value_id x, uint32_t readers)
{
    graph_node *upsample = writer_of(g, x);
    bool hidden = !g->values[x].keep && graph_count_uses(g, x) == readers;
    return upsample && upsample->op == OP_UPSAMPLE2X && hidden ? upsample : NULL;
}

/* Batch statistics: the sums and the normalisation are all that read the large feature map, which is dead then. */
static void rewrite_upsample_bn(graph *g, graph_node *normalize)
{
    if (normalize->op != OP_BN_NORMALIZE || normalize->n_in != 4)
        return;
    graph_node *sums = writer_of(g, normalize->in[1]);
    const graph_node *upsample = normalized_upsample(g, normalize->in[0], 2);
    if (!upsample || !sums || sums->op != OP_BN_SUMS || sums->in[0] != normalize->in[0])
        return;
    sums->op = OP_UPSAMPLE_BN_SUMS;
    normalize->op = OP_UPSAMPLE_BN;
    sums->in[0] = normalize->in[0] = upsample->in[0];
}

/* The same with running statistics. */
static void rewrite_upsample_bn_inference(graph *g, graph_node *inference)
{
    if (inference->op != OP_BN_INFERENCE || inference->n_in != 5)
        return;
    const graph_node *upsample = normalized_upsample(g, inference->in[0], 1);
    if (!upsample)
        return;
    inference->op = OP_UPSAMPLE_BN_INFERENCE;
    inference->in[0] = upsample->in[0];
}

/* The node of that op that reads the value as its first input; else NULL. */
static graph_node *reader_of(graph *g, value_id value, op_id op)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == op && g->nodes[i].in[0] == value)
            return &g->nodes[i];
    return NULL;
}

/* The moments of x cost its channels squared: they have to be few beside those of the result. */
static bool is_widening(const graph *g, const graph_node *convolution)
{
    enum { LEAST_RATIO = 4 };
    return is_pointwise(convolution) &&
           graph_desc(g, convolution->out[0])->dim[3] >= LEAST_RATIO * graph_desc(g, convolution->in[0])->dim[3];
}

/* Only the sums and the normalisation may see the convolution's result, which is never made. */
static void rewrite_linear_bn(graph *g, graph_node *normalize)
{
    if (normalize->op != OP_BN_NORMALIZE || normalize->n_in != 4)
        return;
    value_id y = normalize->in[0];
    graph_node *convolution = writer_of(g, y), *sums = writer_of(g, normalize->in[1]);
    bool hidden = !g->values[y].keep && graph_count_uses(g, y) == 2;
    if (!hidden || !convolution || !is_widening(g, convolution) || !sums || sums->op != OP_BN_SUMS || sums->in[0] != y)
        return;
    value_id x = convolution->in[0], w = convolution->in[1], gamma = normalize->in[2], beta = normalize->in[3];
    tensor_desc desc = *graph_desc(g, x);
    const int32_t channels = desc.dim[3], dim[4] = {channels + 1, 1, 1, channels};
    memcpy(desc.dim, dim, sizeof dim);
    desc.layout = LAYOUT_OI;
    value_id moments = graph_value_new(g, desc, NULL);

    become(convolution, &(graph_node){.op = OP_CHANNEL_MOMENTS, .n_in = 1, .n_out = 1, .in = {x}, .out = {moments}});
    sums->op = OP_LINEAR_BN_SUMS;
    sums->in[0] = moments;
    sums->in[1] = w;
    sums->n_in = 2;
    const value_id in[] = {x, w, normalize->in[1], gamma, beta, moments};
    normalize->op = OP_LINEAR_BN;
    memcpy(normalize->in, in, sizeof in);
    normalize->n_in = 6;
}

/* Only the sums and the normalisation may see the layer's result, whose mean they take out again. */
static void rewrite_bias(graph *g, graph_node *normalize)
{
    if (normalize->op != OP_BN_NORMALIZE)
        return;
    value_id x = normalize->in[0];
    graph_node *layer = writer_of(g, x), *running = reader_of(g, normalize->in[1], OP_BN_RUNNING);
    const graph_node *sums = writer_of(g, normalize->in[1]);
    bool biased = layer && (layer->op == OP_CONV2D || layer->op == OP_LINEAR) && layer->n_in == 3;
    bool hidden = !g->values[x].keep && graph_count_uses(g, x) == 2;
    if (!biased || !hidden || !running || running->n_in != 3 || !sums || sums->op != OP_BN_SUMS || sums->in[0] != x)
        return;
    running->in[running->n_in++] = layer->in[--layer->n_in];
}

void graph_rewrite(graph *g, unsigned rewrites)
{
    for (uint32_t i = 0; i < g->n_nodes && !g->status; i++) {
        if (rewrites & REWRITE_UPSAMPLE)
            rewrite_upsample(g, &g->nodes[i]);
        if (rewrites & REWRITE_FUSE)
            rewrite_fuse(g, &g->nodes[i]);
        if (rewrites & REWRITE_UPSAMPLE_BN) {
            rewrite_upsample_bn(g, &g->nodes[i]);
            rewrite_upsample_bn_inference(g, &g->nodes[i]);
        }
        if (rewrites & REWRITE_LINEAR_BN)
            rewrite_linear_bn(g, &g->nodes[i]);
        if (rewrites & REWRITE_BIAS)
            rewrite_bias(g, &g->nodes[i]);
        if ((rewrites & REWRITE_PATCH) && rewrite_patch(g, i))
            i++;
    }
    graph_drop_dead(g);
}

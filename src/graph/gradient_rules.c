/* Owns the gradient rule of each forward op: what is emitted, never how it is computed. One thread. */
#include "base/error.h"
#include "graph/backward.h"

#include <string.h>

/* Emits dx = op(dy, second) when the input's gradient is wanted. */
static void give_input(backward *b, value_id x, op_id op, const op_attr *attr, int n_in, const value_id *in)
{
    if (!backward_wants(b, x))
        return;
    value_id dx = backward_give_new(b, x);
    graph_emit(b->g, op, attr, n_in, in, 1, &dx);
}

/* conv2d and linear: the weight's gradient first, so that its reduction over the ranks can start. */
static void give_weighted(backward *b, const graph_node *node, op_id wgrad, op_id dgrad)
{
    value_id dy = backward_take(b, node->out[0]);
    value_id out[2] = {backward_give_new(b, node->in[1]), VALUE_NONE};
    int n_out = 1;
    if (node->n_in == 3) {
        out[1] = backward_give_new(b, node->in[2]);
        n_out = 2;
    }
    graph_emit(b->g, wgrad, &node->attr, 2, (value_id[]){node->in[0], dy}, n_out, out);
    give_input(b, node->in[0], dgrad, &node->attr, 2, (value_id[]){dy, node->in[1]});
}

void gradient_conv2d(backward *b, const graph_node *node)
{
    give_weighted(b, node, OP_CONV2D_WGRAD, OP_CONV2D_DGRAD);
}

void gradient_linear(backward *b, const graph_node *node)
{
    give_weighted(b, node, OP_LINEAR_WGRAD, OP_LINEAR_DGRAD);
}

void gradient_concat_linear(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    value_id dw = backward_give_new(b, node->in[2]);
    graph_emit(b->g, OP_CONCAT_LINEAR_WGRAD, NULL, 3, (value_id[]){node->in[0], node->in[1], dy}, 1, &dw);
    value_id out[2] = {backward_give_new(b, node->in[0]), backward_give_new(b, node->in[1])};
    graph_emit(b->g, OP_CONCAT_LINEAR_DGRAD, NULL, 2, (value_id[]){dy, node->in[2]}, 2, out);
}

/* The statistics' gradient is part of bn_normalize's. */
void gradient_by_normalize(backward *b, const graph_node *node)
{
    (void)b;
    (void)node;
}

void gradient_none(backward *b, const graph_node *node)
{
    graph_fail(b->g, ERROR_INTERNAL, "%s has no gradient", op_name((op_id)node->op));
}

static value_id new_sums(graph *g, value_id sums)
{
    return graph_value_new(g, *graph_desc(g, sums), NULL);
}

/* The gradients of gamma and beta are this rank's own; what follows takes the sums of all ranks where they share
 * their statistics. */
static void give_affine(backward *b, value_id gsums, value_id gamma, value_id beta)
{
    value_id affine[2] = {backward_give_new(b, gamma), backward_give_new(b, beta)};
    graph_emit(b->g, OP_BN_PARAM_GRAD, NULL, 1, &gsums, 2, affine);
    if (b->sync_bn)
        graph_emit(b->g, OP_ALL_REDUCE, NULL, 1, &gsums, 0, NULL);
}

void gradient_bn_normalize(backward *b, const graph_node *node)
{
    graph *g = b->g;
    value_id x = node->in[0], sums = node->in[1], gamma = node->in[2], beta = node->in[3];
    value_id residual = node->n_in == 5 ? node->in[4] : VALUE_NONE, y = node->out[0];
    enum { FIXED = 5, TERMS = NODE_MAX_IN - FIXED };
    value_id terms[CONTRIBUTIONS_MAX];
    int n_terms = backward_terms(b, y, terms);
    if (n_terms > TERMS) {
        terms[0] = backward_take(b, y);
        n_terms = 1;
    }
    /* The masked sum is written down only where somebody besides this batch normalisation reads it, or to add once. */
    bool write_g = n_terms > 1 || (residual && node->attr.relu);
    value_id in[NODE_MAX_IN] = {x, sums, gamma, beta, residual && node->attr.relu ? y : VALUE_NONE};
    memcpy(in + FIXED, terms, (size_t)n_terms * sizeof *terms);
    value_id out[2] = {new_sums(g, sums), VALUE_NONE};
    if (write_g)
        out[1] = graph_value_new(g, *graph_desc(g, terms[0]), NULL);
    graph_emit(g, OP_BN_GRAD_SUMS, &node->attr, FIXED + n_terms, in, write_g ? 2 : 1, out);
    give_affine(b, out[0], gamma, beta);

    op_attr attr = node->attr;
    attr.relu = node->attr.relu && !write_g;
    value_id dy = write_g ? out[1] : terms[0];
    give_input(b, x, OP_BN_GRAD, &attr, 6, (value_id[]){x, sums, gamma, beta, out[0], dy});
    if (residual && backward_wants(b, residual))
        backward_give(b, residual, dy);
}

void gradient_add(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    for (int k = 0; k < node->n_in; k++)
        if (backward_wants(b, node->in[k]))
            backward_give(b, node->in[k], dy);
}

void gradient_concat(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    op_attr attr = {0};
    for (int k = 0; k < 2; k++) {
        give_input(b, node->in[k], OP_CHANNEL_SLICE, &attr, 1, &dy);
        attr.channel_offset += graph_desc(b->g, node->in[k])->dim[3];
    }
}

static void give_unary(backward *b, const graph_node *node, op_id op)
{
    value_id dy = backward_take(b, node->out[0]);
    give_input(b, node->in[0], op, &node->attr, 1, &dy);
}

void gradient_upsample2x(backward *b, const graph_node *node)
{
    give_unary(b, node, OP_UPSAMPLE2X_GRAD);
}

void gradient_patchify(backward *b, const graph_node *node)
{
    give_unary(b, node, OP_UNPATCHIFY);
}

void gradient_fold_fuse_weight(backward *b, const graph_node *node)
{
    give_unary(b, node, OP_FOLD_FUSE_WEIGHT_GRAD);
}

void gradient_global_average_pool(backward *b, const graph_node *node)
{
    give_unary(b, node, OP_GLOBAL_AVERAGE_POOL_GRAD);
}

void gradient_pad_channels(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    give_input(b, node->in[0], OP_CHANNEL_SLICE, NULL, 1, &dy);
}

void gradient_relu(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    give_input(b, node->in[0], OP_RELU_GRAD, NULL, 2, (value_id[]){node->out[0], dy});
}

void gradient_max_pool(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]);
    give_input(b, node->in[0], OP_MAX_POOL_GRAD, &node->attr, 2, (value_id[]){node->in[0], dy});
}

void gradient_excite(backward *b, const graph_node *node)
{
    value_id dy = backward_take(b, node->out[0]), out[3];
    for (int k = 0; k < 3; k++)
        out[k] = backward_give_new(b, node->in[k]);
    graph_emit(b->g, OP_EXCITE_GRAD, NULL, 4, (value_id[]){node->in[0], node->in[1], node->out[0], dy}, 3, out);
}

void gradient_cross_entropy(backward *b, const graph_node *node)
{
    give_input(b, node->in[0], OP_CROSS_ENTROPY_GRAD, &node->attr, 2, node->in);
}

/* attr.detach_teacher: the paper's code lets the gradient flow into the teacher, this can be turned off. */
void gradient_kd_loss(backward *b, const graph_node *node)
{
    value_id out[2] = {backward_give_new(b, node->in[0]), VALUE_NONE};
    bool into_teacher = !node->attr.detach_teacher && backward_wants(b, node->in[1]);
    if (into_teacher)
        out[1] = backward_give_new(b, node->in[1]);
    graph_emit(b->g, OP_KD_LOSS_GRAD, &node->attr, 2, node->in, into_teacher ? 2 : 1, out);
}

/* The teacher's feature is a constant here: the published target is detached. */
void gradient_feature_loss(backward *b, const graph_node *node)
{
    give_input(b, node->in[0], OP_FEATURE_LOSS_GRAD, &node->attr, 2, node->in);
}

/* What the batch's statistics add to the gradients comes from sums and small products. Of the large feature maps only
 * the masked gradient is read. */
void gradient_linear_bn(backward *b, const graph_node *node)
{
    graph *g = b->g;
    value_id x = node->in[0], w = node->in[1], sums = node->in[2], gamma = node->in[3], beta = node->in[4];
    value_id moments = node->in[5], y = node->out[0], dy = backward_take(b, y);
    if (node->attr.relu) {
        value_id masked = graph_value_new(g, *graph_desc(g, dy), NULL);
        graph_emit(g, OP_RELU_GRAD, NULL, 2, (value_id[]){y, dy}, 1, &masked);
        dy = masked;
    }
    tensor_desc of_weight = *graph_desc(g, w), of_bias = *graph_desc(g, beta);
    of_weight.kind = of_bias.kind = KIND_ACTIVATION;
    value_id product[2] = {graph_value_new(g, of_weight, NULL), graph_value_new(g, of_bias, NULL)};
    graph_emit(g, OP_LINEAR_WGRAD, NULL, 2, (value_id[]){x, dy}, 2, product);
    value_id gsums = new_sums(g, sums);
    graph_emit(g, OP_LINEAR_BN_GRAD_SUMS, &node->attr, 4, (value_id[]){product[0], product[1], w, sums}, 1, &gsums);
    give_affine(b, gsums, gamma, beta);

    value_id dw = backward_give_new(b, w);
    graph_emit(g, OP_LINEAR_BN_WGRAD, &node->attr, 6, (value_id[]){product[0], w, sums, gamma, gsums, moments}, 1, &dw);
    give_input(b, x, OP_LINEAR_BN_DGRAD, &node->attr, 6, (value_id[]){dy, x, w, sums, gamma, gsums});
}

/* The large gradient is read once, by the node that gathers it to the small size; all after it is small. */
void gradient_upsample_bn(backward *b, const graph_node *node)
{
    graph *g = b->g;
    value_id z = node->in[0], sums = node->in[1], gamma = node->in[2], beta = node->in[3];
    value_id dy = backward_take(b, node->out[0]);
    value_id out[2] = {new_sums(g, sums), graph_value_new(g, *graph_desc(g, z), NULL)};
    graph_emit(g, OP_UPSAMPLE_BN_GRAD_SUMS, &node->attr, 5, (value_id[]){z, sums, gamma, beta, dy}, 2, out);
    give_affine(b, out[0], gamma, beta);
    give_input(b, z, OP_UPSAMPLE_BN_GRAD, &node->attr, 5, (value_id[]){z, sums, gamma, out[0], out[1]});
}

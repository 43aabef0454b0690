/* Owns the shape rules of the forward ops. Pure functions of the descriptors; any thread.
 * The caller has set dtype real, NHWC and KIND_ACTIVATION; a rule changes what differs. */
#include "base/error.h"
#include "graph/op_table.h"

#include <string.h>

static void set_dim(tensor_desc *out, int32_t n, int32_t h, int32_t w, int32_t c)
{
    const int32_t dim[4] = {n, h, w, c};
    memcpy(out->dim, dim, sizeof dim);
}

static const tensor_desc *input(const graph *g, const graph_node *node, int index)
{
    return graph_desc(g, node->in[index]);
}

static int same_dims(const tensor_desc *a, const tensor_desc *b)
{
    CHECK(memcmp(a->dim, b->dim, sizeof a->dim) == 0, ERROR_SHAPE, "%dx%dx%dx%d does not match %dx%dx%dx%d", a->dim[0],
          a->dim[1], a->dim[2], a->dim[3], b->dim[0], b->dim[1], b->dim[2], b->dim[3]);
    return 0;
}

static int check_bias(const graph *g, const graph_node *node, int32_t channels)
{
    if (node->n_in < 3)
        return 0;
    CHECK(tensor_count(input(g, node, 2)) == channels, ERROR_SHAPE, "a bias of %lld elements for %d channels",
          (long long)tensor_count(input(g, node, 2)), channels);
    return 0;
}

int shape_conv2d(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0), *w = input(g, node, 1);
    const op_attr *a = &node->attr;
    CHECK(a->stride >= 1 && a->kernel >= 1 && a->pad >= 0, ERROR_SHAPE, "a %dx%d convolution of stride %d, padding %d",
          a->kernel, a->kernel, a->stride, a->pad);
    CHECK(a->groups >= 1 && x->dim[3] == w->dim[3] * a->groups, ERROR_SHAPE,
          "the convolution takes %d channels in %d groups but its input has %d", w->dim[3] * a->groups, a->groups,
          x->dim[3]);
    int32_t h = x->dim[1] + 2 * a->pad - a->kernel, width = x->dim[2] + 2 * a->pad - a->kernel;
    CHECK(h >= 0 && width >= 0, ERROR_SHAPE, "a %dx%d convolution does not fit into a %dx%d feature map", a->kernel,
          a->kernel, x->dim[1], x->dim[2]);
    set_dim(out, x->dim[0], h / a->stride + 1, width / a->stride + 1, w->dim[0]);
    return check_bias(g, node, w->dim[0]);
}

int shape_linear(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0), *w = input(g, node, 1);
    int64_t columns = tensor_count(w) / w->dim[0];
    CHECK(columns == x->dim[3], ERROR_SHAPE, "the layer takes %lld features but its input has %d", (long long)columns,
          x->dim[3]);
    set_dim(out, x->dim[0], x->dim[1], x->dim[2], w->dim[0]);
    return check_bias(g, node, w->dim[0]);
}

int shape_concat_linear(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *a = input(g, node, 0), *b = input(g, node, 1), *w = input(g, node, 2);
    TRY(same_dims(a, b));
    CHECK(w->dim[3] == a->dim[3] + b->dim[3], ERROR_SHAPE, "the layer takes %d channels but its inputs have %d + %d",
          w->dim[3], a->dim[3], b->dim[3]);
    set_dim(out, a->dim[0], a->dim[1], a->dim[2], w->dim[0]);
    return 0;
}

int shape_channel_moments(const graph *g, const graph_node *node, tensor_desc *out)
{
    int32_t channels = input(g, node, 0)->dim[3];
    set_dim(out, channels + 1, 1, 1, channels);
    out->layout = LAYOUT_OI;
    return 0;
}

int shape_linear_bn_sums(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *moments = input(g, node, 0), *w = input(g, node, 1);
    CHECK(moments->dim[3] == tensor_count(w) / w->dim[0], ERROR_SHAPE, "moments of %d channels for a layer of %lld",
          moments->dim[3], (long long)(tensor_count(w) / w->dim[0]));
    set_dim(out, 1, 1, 2, w->dim[0]);
    out->dtype = DTYPE_F64;
    return 0;
}

int shape_linear_bn(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0), *w = input(g, node, 1);
    CHECK(x->dim[3] == tensor_count(w) / w->dim[0], ERROR_SHAPE, "the layer takes %lld channels but its input has %d",
          (long long)(tensor_count(w) / w->dim[0]), x->dim[3]);
    set_dim(out, x->dim[0], x->dim[1], x->dim[2], w->dim[0]);
    for (int k = 3; k < 5; k++)
        CHECK(tensor_count(input(g, node, k)) == out->dim[3], ERROR_SHAPE, "a vector of %lld elements for %d channels",
              (long long)tensor_count(input(g, node, k)), out->dim[3]);
    return 0;
}

int shape_channel_sums(const graph *g, const graph_node *node, tensor_desc *out)
{
    set_dim(out, 1, 1, 2, input(g, node, 0)->dim[3]);
    out->dtype = DTYPE_F64;
    return 0;
}

int shape_add(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    memcpy(out->dim, x->dim, sizeof x->dim);
    for (int k = 1; k < node->n_in; k++)
        TRY(same_dims(x, input(g, node, k)));
    return 0;
}

/* Inputs: x, then per-channel vectors up to `residual_index`, then perhaps a residual of x's shape. */
static int batch_norm_shape(const graph *g, const graph_node *node, int first_vector, int residual_index,
                            tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    memcpy(out->dim, x->dim, sizeof x->dim);
    for (int k = first_vector; k < residual_index; k++)
        CHECK(tensor_count(input(g, node, k)) == x->dim[3], ERROR_SHAPE, "a vector of %lld elements for %d channels",
              (long long)tensor_count(input(g, node, k)), x->dim[3]);
    return node->n_in > residual_index ? same_dims(x, input(g, node, residual_index)) : 0;
}

int shape_bn_normalize(const graph *g, const graph_node *node, tensor_desc *out)
{
    return batch_norm_shape(g, node, 2, 4, out);
}

int shape_bn_inference(const graph *g, const graph_node *node, tensor_desc *out)
{
    return batch_norm_shape(g, node, 1, 5, out);
}

int shape_as_input(const graph *g, const graph_node *node, tensor_desc *out)
{
    memcpy(out->dim, input(g, node, 0)->dim, sizeof out->dim);
    return 0;
}

int shape_concat(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *a = input(g, node, 0), *b = input(g, node, 1);
    CHECK(a->dim[0] == b->dim[0] && a->dim[1] == b->dim[1] && a->dim[2] == b->dim[2], ERROR_SHAPE,
          "cannot concatenate feature maps of %dx%d and %dx%d", a->dim[1], a->dim[2], b->dim[1], b->dim[2]);
    set_dim(out, a->dim[0], a->dim[1], a->dim[2], a->dim[3] + b->dim[3]);
    return 0;
}

int shape_upsample2x(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    set_dim(out, x->dim[0], 2 * x->dim[1], 2 * x->dim[2], x->dim[3]);
    return 0;
}

int shape_patchify(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    int32_t k = node->attr.kernel;
    CHECK(k >= 1 && x->dim[1] % k == 0 && x->dim[2] % k == 0, ERROR_SHAPE,
          "a %dx%d feature map has no whole patches of %dx%d", x->dim[1], x->dim[2], k, k);
    set_dim(out, x->dim[0], x->dim[1] / k, x->dim[2] / k, x->dim[3] * k * k);
    return 0;
}

int shape_pooled(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    set_dim(out, x->dim[0], 1, 1, x->dim[3]);
    return 0;
}

int shape_max_pool(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    const op_attr *a = &node->attr;
    int32_t h = x->dim[1] + 2 * a->pad - a->kernel, w = x->dim[2] + 2 * a->pad - a->kernel;
    CHECK(a->stride >= 1 && a->kernel >= 1 && a->pad >= 0 && 2 * a->pad <= a->kernel, ERROR_SHAPE,
          "a %dx%d max-pool of stride %d, padding %d", a->kernel, a->kernel, a->stride, a->pad);
    CHECK(h >= 0 && w >= 0, ERROR_SHAPE, "a %dx%d max-pool does not fit into a %dx%d feature map", a->kernel, a->kernel,
          x->dim[1], x->dim[2]);
    set_dim(out, x->dim[0], h / a->stride + 1, w / a->stride + 1, x->dim[3]);
    return 0;
}

int shape_excite(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *r = input(g, node, 0), *z = input(g, node, 1);
    CHECK(z->dim[0] == r->dim[0] && z->dim[1] == 1 && z->dim[2] == 1 && z->dim[3] == r->dim[3], ERROR_SHAPE,
          "an excitation of %dx%dx%dx%d for a feature map of %d channels", z->dim[0], z->dim[1], z->dim[2], z->dim[3],
          r->dim[3]);
    memcpy(out->dim, r->dim, sizeof r->dim);
    return same_dims(r, input(g, node, 2));
}

static int float64_vector(tensor_desc *out, int32_t count)
{
    set_dim(out, 1, 1, 1, count);
    out->dtype = DTYPE_F64;
    return 0;
}

int shape_images(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *set = input(g, node, 0), *choice = input(g, node, 1), *table = input(g, node, 2);
    CHECK(set->dtype == DTYPE_U8 && set->dim[3] == 3 && tensor_count(table) == 3 * 256, ERROR_SHAPE,
          "images are bytes of 3 channels, with a table of 256 values for each channel");
    CHECK(choice->dim[3] == 4 && node->attr.channels >= 3, ERROR_SHAPE,
          "an image is chosen by 4 numbers and gets at least 3 channels");
    set_dim(out, choice->dim[0], set->dim[1], set->dim[2], node->attr.channels);
    return 0;
}

int shape_pad_channels(const graph *g, const graph_node *node, tensor_desc *out)
{
    const tensor_desc *x = input(g, node, 0);
    CHECK(node->attr.channels >= x->dim[3], ERROR_SHAPE, "%d channels cannot be padded to %d", x->dim[3],
          node->attr.channels);
    set_dim(out, x->dim[0], x->dim[1], x->dim[2], node->attr.channels);
    out->layout = x->layout;
    return 0;
}

int shape_scalar(const graph *g, const graph_node *node, tensor_desc *out)
{
    CHECK(input(g, node, 0)->dim[0] == input(g, node, 1)->dim[0], ERROR_SHAPE, "a loss over %d and %d images",
          input(g, node, 0)->dim[0], input(g, node, 1)->dim[0]);
    if (node->op != OP_CROSS_ENTROPY) /* a student against its teacher */
        TRY(same_dims(input(g, node, 0), input(g, node, 1)));
    return float64_vector(out, 1);
}

int shape_scalar_of(const graph *g, const graph_node *node, tensor_desc *out)
{
    (void)g;
    (void)node;
    return float64_vector(out, 1);
}

int shape_pair(const graph *g, const graph_node *node, tensor_desc *out)
{
    (void)g;
    (void)node;
    return float64_vector(out, 2);
}

int shape_none(const graph *g, const graph_node *node, tensor_desc *out)
{
    (void)g;
    (void)node;
    (void)out;
    return 0;
}

int shape_given(const graph *g, const graph_node *node, tensor_desc *out)
{
    (void)g;
    (void)out;
    return error_set(ERROR_INTERNAL, "%s takes its output from the pass that emits it", op_name((op_id)node->op));
}

static int upsample_bn_shape(const graph *g, const graph_node *node, int first_vector, tensor_desc *out)
{
    TRY(batch_norm_shape(g, node, first_vector, node->n_in, out));
    return shape_upsample2x(g, node, out);
}

int shape_upsample_bn(const graph *g, const graph_node *node, tensor_desc *out)
{
    return upsample_bn_shape(g, node, 2, out);
}

int shape_upsample_bn_inference(const graph *g, const graph_node *node, tensor_desc *out)
{
    return upsample_bn_shape(g, node, 1, out);
}

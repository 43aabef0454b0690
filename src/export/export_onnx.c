/* Owns the mapping from the evaluation graph to ONNX nodes. Invariant: nodes are written in the graph's order, each
 * value bears one name, and only what the logits depend on is written. Activations are NCHW in the file. One thread. */
#include "base/error.h"
#include "export/export.h"
#include "io/file/onnx_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = GRAPH_NAME_BYTES + 32 };

typedef struct {
    char text[NAME_BYTES];
} value_name;

typedef struct {
    const network_export *d;
    const graph *g;
    onnx_file *file;
    bool fold_norms;
    bool *needed;                 /* per value: do the logits depend on it? */
    bool *flat;                   /* per value: written as [n, c] rather than [n, c, h, w] */
    value_name *names;            /* per value; empty: not written yet */
    const graph_node **producers; /* per value */
} exporter;

static onnx_attribute integer(const char *name, int64_t value)
{
    return (onnx_attribute){.name = name, .kind = ONNX_INTEGER, .integers = {value}};
}

static onnx_attribute both_ways(const char *name, int64_t value)
{
    return (onnx_attribute){.name = name, .kind = ONNX_INTEGERS, .integers = {value, value}, .count = 2};
}

static onnx_attribute all_sides(const char *name, int64_t value)
{
    return (onnx_attribute){.name = name, .kind = ONNX_INTEGERS, .integers = {value, value, value, value}, .count = 4};
}

/* The name of an intermediate result of a node. */
static value_name inner_name(const graph_node *node, const char *op)
{
    value_name name;
    snprintf(name.text, sizeof name.text, "%s/%s", node->label, op);
    return name;
}

/* Names the node's result after its last ONNX node, unless it has a name already (an output of the network). */
static const char *result_name(exporter *x, const graph_node *node, const char *op)
{
    value_name *name = &x->names[node->out[0]];
    if (!name->text[0])
        *name = inner_name(node, op);
    return name->text;
}

static const char *in_name(const exporter *x, const graph_node *node, int i)
{
    return x->names[node->in[i]].text;
}

/* Writes the weights as constants under their own names. */
static int put_weights(exporter *x, const graph_node *node, int first, int end)
{
    for (int i = first; i < end; i++) {
        value_id id = node->in[i];
        float *values;
        int64_t shape[4];
        int rank;
        if (x->names[id].text[0])
            continue;
        TRY(export_read(x->d, id, &values, shape, &rank));
        snprintf(x->names[id].text, NAME_BYTES, "%s", x->g->values[id].name);
        onnx_floats(x->file, x->names[id].text, rank, shape, values);
        free(values);
    }
    return 0;
}

static void put_convolution(exporter *x, const graph_node *node, int n_in, const char *const *in, const char *out)
{
    const op_attr *a = &node->attr;
    const onnx_attribute attributes[] = {both_ways("kernel_shape", a->kernel), both_ways("strides", a->stride),
                                         all_sides("pads", a->pad), integer("group", a->groups)};
    onnx_node(x->file, "Conv", n_in, in, out, 4, attributes);
}

/* Does a normalisation, the only reader of this convolution's result, take it in? */
static bool is_folded(const exporter *x, const graph_node *conv)
{
    if (!x->fold_norms)
        return false;
    for (uint32_t i = 0; i < x->g->n_nodes; i++) {
        const graph_node *node = &x->g->nodes[i];
        if (node->op == OP_BN_INFERENCE && node->in[0] == conv->out[0])
            return graph_count_uses(x->g, conv->out[0]) == 1;
    }
    return false;
}

static int put_conv2d(exporter *x, const graph_node *node)
{
    if (is_folded(x, node))
        return 0; /* comes with the normalisation */
    TRY(put_weights(x, node, 1, node->n_in));
    const char *in[] = {in_name(x, node, 0), in_name(x, node, 1), node->n_in > 2 ? in_name(x, node, 2) : ""};
    put_convolution(x, node, node->n_in, in, result_name(x, node, "Conv"));
    return 0;
}

/* Per channel: y = scale * x + shift is what the normalisation does. */
static int read_affine(const exporter *x, const graph_node *norm, double *scale, double *shift)
{
    int64_t channels = graph_desc(x->g, norm->in[1])->dim[3];
    float *read[4] = {NULL}; /* mean, variance, weight, bias */
    int status = 0;
    for (int i = 0; i < 4 && status == 0; i++)
        status = export_read(x->d, norm->in[1 + i], &read[i], NULL, NULL);
    for (int64_t c = 0; c < channels && status == 0; c++) {
        scale[c] = (double)read[2][c] / sqrt((double)read[1][c] + norm->attr.eps);
        shift[c] = (double)read[3][c] - (double)read[0][c] * scale[c];
    }
    for (int i = 0; i < 4; i++)
        free(read[i]);
    return status;
}

static int put_folded_weights(exporter *x, const graph_node *conv, const double *scale, const double *shift,
                              float *folded_bias)
{
    const char *weight_name = x->g->values[conv->in[1]].name;
    int64_t shape[4], channels = graph_desc(x->g, conv->in[1])->dim[0];
    float *weight, *bias = NULL;
    char bias_name[NAME_BYTES];
    TRY(export_read(x->d, conv->in[1], &weight, shape, NULL));
    int status = conv->n_in > 2 ? export_read(x->d, conv->in[2], &bias, NULL, NULL) : 0;
    int64_t each = tensor_count(graph_desc(x->g, conv->in[1])) / channels;
    for (int64_t c = 0; c < channels && status == 0; c++) {
        for (int64_t i = c * each; i < (c + 1) * each; i++)
            weight[i] = (float)((double)weight[i] * scale[c]);
        folded_bias[c] = (float)(shift[c] + (bias ? (double)bias[c] * scale[c] : 0));
    }
    if (status == 0) /* finite weights can overflow, and a negative variance has no root */
        status = export_check_finite(x->d, weight_name, weight, channels * each);
    if (status == 0)
        status = export_check_finite(x->d, conv->label, folded_bias, channels);
    if (status == 0) {
        onnx_floats(x->file, weight_name, 4, shape, weight);
        snprintf(bias_name, sizeof bias_name, "%s/folded_bias", conv->label);
        onnx_floats(x->file, bias_name, 1, &channels, folded_bias);
    }
    free(weight);
    free(bias);
    return status;
}

static int put_folded(exporter *x, const graph_node *norm, const graph_node *conv, const char *out)
{
    size_t channels = (size_t)graph_desc(x->g, conv->out[0])->dim[3];
    double *scale = calloc(2 * channels, sizeof *scale);
    float *bias = calloc(channels, sizeof *bias);
    int status = scale && bias ? 0 : error_set(ERROR_MEMORY, "no memory to fold %s", norm->label);
    if (status == 0)
        status = read_affine(x, norm, scale, scale + channels);
    if (status == 0)
        status = put_folded_weights(x, conv, scale, scale + channels, bias);
    if (status == 0) {
        value_name bias_name = inner_name(conv, "folded_bias");
        const char *in[] = {in_name(x, conv, 0), x->g->values[conv->in[1]].name, bias_name.text};
        put_convolution(x, conv, 3, in, out);
    }
    free(scale);
    free(bias);
    return status;
}

static int put_norm(exporter *x, const graph_node *node, const char *out)
{
    const graph_node *conv = x->producers[node->in[0]];
    if (conv && conv->op == OP_CONV2D && is_folded(x, conv))
        return put_folded(x, node, conv, out);
    TRY(put_weights(x, node, 1, 5));
    const char *in[] = {in_name(x, node, 0), in_name(x, node, 3), in_name(x, node, 4), in_name(x, node, 1),
                        in_name(x, node, 2)};
    const onnx_attribute eps = {.name = "epsilon", .kind = ONNX_FLOAT, .number = (float)node->attr.eps};
    onnx_node(x->file, "BatchNormalization", 5, in, out, 1, &eps);
    return 0;
}

/* The normalisation, then + residual, then ReLU: up to three nodes, the last of which gives the result. */
static int put_bn_inference(exporter *x, const graph_node *node)
{
    bool residual = node->n_in > 5 && node->in[5] != VALUE_NONE, relu = node->attr.relu;
    const char *out = result_name(x, node, relu ? "Relu" : residual ? "Add" : "BatchNormalization");
    value_name normalised = inner_name(node, "BatchNormalization"), sum = inner_name(node, "Add");
    const char *last = residual || relu ? normalised.text : out;
    TRY(put_norm(x, node, last));
    if (residual) {
        const char *in[] = {last, in_name(x, node, 5)};
        last = relu ? sum.text : out;
        onnx_node(x->file, "Add", 2, in, last, 0, NULL);
    }
    if (relu)
        onnx_node(x->file, "Relu", 1, &last, out, 0, NULL);
    return 0;
}

static int put_linear(exporter *x, const graph_node *node)
{
    const tensor_desc *in_desc = graph_desc(x->g, node->in[0]);
    CHECK(in_desc->dim[1] == 1 && in_desc->dim[2] == 1 && graph_desc(x->g, node->in[1])->layout == LAYOUT_OI,
          ERROR_INTERNAL, "%s: a linear layer over a feature map has no counterpart in an ONNX file", node->label);
    TRY(put_weights(x, node, 1, node->n_in));
    value_name flattened = inner_name(node, "Flatten");
    const char *from = in_name(x, node, 0);
    if (!x->flat[node->in[0]]) {
        const onnx_attribute axis = integer("axis", 1);
        onnx_node(x->file, "Flatten", 1, &from, flattened.text, 1, &axis);
        from = flattened.text;
    }
    const char *in[] = {from, in_name(x, node, 1), node->n_in > 2 ? in_name(x, node, 2) : ""};
    const onnx_attribute transposed = integer("transB", 1);
    x->flat[node->out[0]] = true;
    onnx_node(x->file, "Gemm", node->n_in, in, result_name(x, node, "Gemm"), 1, &transposed);
    return 0;
}

static int put_relu(exporter *x, const graph_node *node)
{
    const char *in = in_name(x, node, 0);
    x->flat[node->out[0]] = x->flat[node->in[0]];
    onnx_node(x->file, "Relu", 1, &in, result_name(x, node, "Relu"), 0, NULL);
    return 0;
}

static int put_max_pool(exporter *x, const graph_node *node)
{
    const char *in = in_name(x, node, 0);
    const op_attr *a = &node->attr;
    const onnx_attribute attributes[] = {both_ways("kernel_shape", a->kernel), both_ways("strides", a->stride),
                                         all_sides("pads", a->pad)};
    onnx_node(x->file, "MaxPool", 1, &in, result_name(x, node, "MaxPool"), 3, attributes);
    return 0;
}

static int put_global_average_pool(exporter *x, const graph_node *node)
{
    const char *in = in_name(x, node, 0);
    onnx_node(x->file, "GlobalAveragePool", 1, &in, result_name(x, node, "GlobalAveragePool"), 0, NULL);
    return 0;
}

/* relu(r * sigmoid(z) + shortcut), with z the same for a whole feature map. */
static int put_excite(exporter *x, const graph_node *node)
{
    static const int64_t map_axes[] = {2, 3};
    value_name gate = inner_name(node, "Sigmoid"), wide = inner_name(node, "Unsqueeze"),
               axes = inner_name(node, "Unsqueeze/axes"), product = inner_name(node, "Mul"),
               sum = inner_name(node, "Add");
    const char *z = in_name(x, node, 1), *factor = gate.text;
    onnx_node(x->file, "Sigmoid", 1, &z, gate.text, 0, NULL);
    if (x->flat[node->in[1]]) {
        onnx_integers(x->file, axes.text, 2, map_axes);
        onnx_node(x->file, "Unsqueeze", 2, (const char *[]){gate.text, axes.text}, wide.text, 0, NULL);
        factor = wide.text;
    }
    onnx_node(x->file, "Mul", 2, (const char *[]){in_name(x, node, 0), factor}, product.text, 0, NULL);
    onnx_node(x->file, "Add", 2, (const char *[]){product.text, in_name(x, node, 2)}, sum.text, 0, NULL);
    const char *before = sum.text;
    onnx_node(x->file, "Relu", 1, &before, result_name(x, node, "Relu"), 0, NULL);
    return 0;
}

static int put_upsample(exporter *x, const graph_node *node)
{
    static const float factors[] = {1, 1, 2, 2};
    static const int64_t count = 4;
    value_name scales = inner_name(node, "Resize/scales");
    const onnx_attribute attributes[] = {
        {.name = "mode", .kind = ONNX_TEXT, .text = "linear"},
        {.name = "coordinate_transformation_mode", .kind = ONNX_TEXT, .text = "align_corners"}};
    onnx_floats(x->file, scales.text, 1, &count, factors);
    onnx_node(x->file, "Resize", 3, (const char *[]){in_name(x, node, 0), "", scales.text},
              result_name(x, node, "Resize"), 2, attributes);
    return 0;
}

static int put_add(exporter *x, const graph_node *node)
{
    const char *op = node->n_in == 2 ? "Add" : "Sum", *in[NODE_MAX_IN];
    for (int i = 0; i < node->n_in; i++)
        in[i] = in_name(x, node, i);
    onnx_node(x->file, op, node->n_in, in, result_name(x, node, op), 0, NULL);
    return 0;
}

static int put_concat(exporter *x, const graph_node *node)
{
    const onnx_attribute channels = integer("axis", 1);
    onnx_node(x->file, "Concat", 2, (const char *[]){in_name(x, node, 0), in_name(x, node, 1)},
              result_name(x, node, "Concat"), 1, &channels);
    return 0;
}

static int put_node(exporter *x, const graph_node *node)
{
    static int (*const puts[OP_COUNT])(exporter *, const graph_node *) = {
        [OP_CONV2D] = put_conv2d,     [OP_BN_INFERENCE] = put_bn_inference,
        [OP_LINEAR] = put_linear,     [OP_RELU] = put_relu,
        [OP_MAX_POOL] = put_max_pool, [OP_GLOBAL_AVERAGE_POOL] = put_global_average_pool,
        [OP_EXCITE] = put_excite,     [OP_UPSAMPLE2X] = put_upsample,
        [OP_ADD] = put_add,           [OP_CONCAT] = put_concat,
    };
    CHECK(puts[node->op], ERROR_INTERNAL, "%s: the op %s has no counterpart in an ONNX file", node->label,
          op_name((op_id)node->op));
    return puts[node->op](x, node);
}

static void put_ends(exporter *x)
{
    const model *m = &x->d->m;
    const int32_t *dim = graph_desc(x->g, m->input)->dim;
    snprintf(x->names[m->input].text, NAME_BYTES, "input");
    onnx_input(x->file, "input", 4, (const int64_t[]){ONNX_BATCH, dim[3], dim[1], dim[2]});
    for (int head = 0; head < HEADS; head++) {
        if (!m->head_on[head])
            continue;
        char *name = x->names[m->logits[head]].text;
        snprintf(name, NAME_BYTES, "logits%s%s", head > 0 ? "_" : "", head > 0 ? head_names[head] : "");
        onnx_output(x->file, name, 2, (const int64_t[]){ONNX_BATCH, x->d->options.model.classes});
        x->needed[m->logits[head]] = true;
    }
}

static void find_needed(exporter *x)
{
    for (uint32_t i = x->g->n_nodes; i-- > 0;) {
        const graph_node *node = &x->g->nodes[i];
        if (node->n_out == 0 || !x->needed[node->out[0]])
            continue;
        x->producers[node->out[0]] = node;
        for (int k = 0; k < node->n_in; k++)
            x->needed[node->in[k]] = true;
    }
}

static int put_network(exporter *x)
{
    put_ends(x);
    find_needed(x);
    for (uint32_t i = 0; i < x->g->n_nodes; i++) {
        const graph_node *node = &x->g->nodes[i];
        if (node->n_out > 0 && x->needed[node->out[0]])
            TRY(put_node(x, node));
    }
    for (int32_t i = 0; i < x->d->n_texts; i++)
        onnx_metadata(x->file, x->d->texts[i].key, x->d->texts[i].value);
    return 0;
}

int export_write_onnx(const network_export *d, const char *path, bool fold_norms)
{
    size_t n = d->g.n_values;
    exporter x = {.d = d,
                  .g = &d->g,
                  .fold_norms = fold_norms,
                  .needed = calloc(n, sizeof *x.needed),
                  .flat = calloc(n, sizeof *x.flat),
                  .names = calloc(n, sizeof *x.names),
                  .producers = calloc(n, sizeof *x.producers)};
    int status = 0;
    if (!x.needed || !x.flat || !x.names || !x.producers)
        status = error_set(ERROR_MEMORY, "no memory to write %s", path);
    if (status == 0)
        status = onnx_create(&x.file, path, d->options.model.network->name, TESKD_VERSION);
    if (status == 0)
        status = put_network(&x);
    if (status == 0)
        status = onnx_commit(&x.file);
    onnx_close(&x.file);
    free(x.needed);
    free(x.flat);
    free(x.names);
    free(x.producers);
    return status;
}

/* Convolutions by oneDNN: activations stay NHWC, the weight is brought from OHWI into the layout that the
 * primitive chose at each launch (it changes every step), a weight gradient back. A convolution that is a
 * matrix product becomes one; without AVX-512 narrow groups are merged into groups as wide as a vector. */
#include "base/error.h"
#include "cpu.h"

#include <string.h>

enum { CONVOLUTION, REORDER, MERGED };

/* The tensors of one convolution, whatever the direction, as oneDNN sees them (N,C,H,W and [G],O,I,H,W). */
typedef struct {
    dnnl_memory_desc_t src, dst, weight, plain_weight, bias;
    dnnl_dims_t stride, pad;
} geometry;

static bool is_matrix_product(const op_attr *attr)
{
    return attr->kernel == 1 && attr->stride == 1 && attr->pad == 0 && attr->groups == 1;
}

/* How many groups become one whose weight has zeros between them. With AVX2 oneDNN leaves groups narrower than its
 * vector of 8 to its slowest kernels, two to three times as slow as this for 4 channels; with AVX-512 it masks them
 * well. One channel a group has kernels of its own. */
static int64_t groups_merged(const cpu_backend *self, int64_t groups, const tensor_desc *w)
{
    enum { LANES = 8 };
    int64_t in = w->dim[3], out = w->dim[0] / groups, merge = LANES / in;
    bool fits = in > 1 && in * merge == LANES && groups % merge == 0 && out * merge % LANES == 0;
    return fits && self->loops != &cpu_loops_avx512 ? merge : 1;
}

/* Where the elements of output `o` at kernel position `tap` are in the weight of merged groups. */
static int64_t merged_offset(const kernel *k, const tensor_desc *w, int64_t o, int64_t tap)
{
    int64_t taps = (int64_t)w->dim[1] * w->dim[2], out = w->dim[0] / k->request.node.attr.groups;
    return ((o * taps + tap) * k->chunk + o / out % k->chunk) * w->dim[3];
}

static void merge_weight(const cpu_backend *self, const kernel *k, const float *weight, float *merged)
{
    const tensor_desc *w = &k->request.in[1];
    int64_t taps = (int64_t)w->dim[1] * w->dim[2], in = w->dim[3], wide = in * k->chunk;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t o = 0; o < w->dim[0]; o++) {
        memset(merged + o * taps * wide, 0, (size_t)(taps * wide) * sizeof *merged);
        for (int64_t tap = 0; tap < taps; tap++)
            memcpy(merged + merged_offset(k, w, o, tap), weight + (o * taps + tap) * in, (size_t)in * sizeof *merged);
    }
}

static void split_weight_gradient(const cpu_backend *self, const kernel *k, const float *merged, float *gradient)
{
    const tensor_desc *w = &k->request.out[0];
    int64_t taps = (int64_t)w->dim[1] * w->dim[2], in = w->dim[3];
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t o = 0; o < w->dim[0]; o++)
        for (int64_t tap = 0; tap < taps; tap++)
            memcpy(gradient + (o * taps + tap) * in, merged + merged_offset(k, w, o, tap),
                   (size_t)in * sizeof *gradient);
}

static int activation(dnnl_memory_desc_t *out, const tensor_desc *t)
{
    int64_t c = t->dim[3], w = t->dim[2], h = t->dim[1];
    int64_t dim[] = {t->dim[0], c, h, w}, stride[] = {h * w * c, 1, w * c, c};
    return onednn_strided(out, 4, dim, stride);
}

static int weights(geometry *g, const tensor_desc *t, int64_t groups, int64_t i)
{
    int64_t o = t->dim[0] / groups, h = t->dim[1], w = t->dim[2];
    int64_t dim[] = {groups, o, i, h, w}, stride[] = {o * h * w * i, h * w * i, 1, w * i, i};
    int skip = groups == 1; /* the leading dimension exists only in grouped convolutions */
    TRY(onednn_strided(&g->plain_weight, 5 - skip, dim + skip, stride + skip));
    return onednn_any(&g->weight, 5 - skip, dim + skip);
}

static int describe(const cpu_backend *self, kernel *k, geometry *g, const tensor_desc *x, const tensor_desc *w,
                    const tensor_desc *y)
{
    const op_attr *attr = &k->request.node.attr;
    int64_t o[] = {y->dim[3]}, one[] = {1};
    CHECK(attr->groups >= 1 && w->dim[0] == y->dim[3] && (int64_t)w->dim[3] * attr->groups == x->dim[3], ERROR_SHAPE,
          "convolution of %d channels to %d in %d groups: the weight does not fit", x->dim[3], y->dim[3], attr->groups);
    TRY(activation(&g->src, x));
    TRY(activation(&g->dst, y));
    k->chunk = groups_merged(self, attr->groups, w);
    TRY(weights(g, w, attr->groups / k->chunk, w->dim[3] * k->chunk));
    TRY(onednn_strided(&g->bias, 1, o, one));
    g->stride[0] = g->stride[1] = attr->stride;
    g->pad[0] = g->pad[1] = attr->pad;
    return 0;
}

/* brgconv is half as fast as oneDNN's next choice on maps of 4x4 and smaller. With AVX2 the gradient of the weight of a
 * strided 1x1 convolution from fewer channels than a vector has comes out wrong, or never, from jit_1x1 of oneDNN 2.6.
 */
static bool is_refused(const geometry *g, dnnl_prop_kind_t direction, const_dnnl_primitive_desc_t choice)
{
    enum { LANES = 8, SMALL_MAP = 4 };
    const char *name = NULL;
    if (dnnl_primitive_desc_query(choice, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
        return false;
    if (direction == dnnl_forward_training)
        return g->dst.dims[2] <= SMALL_MAP && g->dst.dims[3] <= SMALL_MAP && strncmp(name, "brgconv:", 8) == 0;
    return direction == dnnl_backward_weights && g->src.dims[1] < LANES && g->stride[0] > 1 &&
           strncmp(name, "jit_1x1:", 8) == 0;
}

/* oneDNN's first choice that is not refused; the last ones are plain C. `hint` is the forward, which oneDNN wants for a
 * backward. */
static int choose(const cpu_backend *self, const geometry *g, const dnnl_convolution_desc_t *desc,
                  const_dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_iterator_t iterator = NULL;
    dnnl_primitive_attr_t attribute;
    TRY(onednn_attribute(&attribute, false, false));
    int code = onednn_check(dnnl_primitive_desc_iterator_create(&iterator, desc, attribute, self->engine, hint),
                            "convolution");
    dnnl_primitive_attr_destroy(attribute);
    TRY(code);
    *out = dnnl_primitive_desc_iterator_fetch(iterator);
    while (*out && is_refused(g, desc->prop_kind, *out) &&
           dnnl_primitive_desc_iterator_next(iterator) == dnnl_success) {
        dnnl_primitive_desc_destroy(*out);
        *out = dnnl_primitive_desc_iterator_fetch(iterator);
    }
    dnnl_primitive_desc_iterator_destroy(iterator);
    return *out ? 0 : error_set(ERROR_MEMORY, "no memory for a convolution");
}

static int forward_desc(const cpu_backend *self, const geometry *g, bool bias, dnnl_primitive_desc_t *out)
{
    dnnl_convolution_desc_t desc;
    TRY(onednn_check(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, dnnl_convolution_direct, &g->src,
                                                        &g->weight, bias ? &g->bias : NULL, &g->dst, g->stride, g->pad,
                                                        g->pad),
                     "convolution"));
    return choose(self, g, &desc, NULL, out);
}

static int backward_desc(const cpu_backend *self, const geometry *g, const dnnl_convolution_desc_t *desc,
                         dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_t hint;
    TRY(forward_desc(self, g, false, &hint));
    int code = choose(self, g, desc, hint, out);
    dnnl_primitive_desc_destroy(hint);
    return code;
}

/* Makes both calls and lays out the workspace; `desc` is given up. The weight is argument 1. */
static int prepare_calls(const cpu_backend *self, kernel *k, const geometry *g, dnnl_primitive_desc_t desc,
                         const int *id, int count, size_t *workspace)
{
    onednn_call *convolution = &k->call[CONVOLUTION], *reorder = &k->call[REORDER];
    bool gradient = id[1] == DNNL_ARG_DIFF_WEIGHTS;
    const dnnl_memory_desc_t *weight = dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, id[1]);
    int code = onednn_call_create(convolution, self->engine, desc, count, id);
    if (code == 0)
        code = gradient ? onednn_reorder_create(reorder, self->engine, weight, &g->plain_weight)
                        : onednn_reorder_create(reorder, self->engine, &g->plain_weight, weight);
    if (code == 0 && reorder->primitive)
        k->offset[REORDER] = workspace_take(workspace, dnnl_memory_desc_get_size(weight));
    if (k->chunk > 1)
        k->offset[MERGED] = workspace_take(workspace, dnnl_memory_desc_get_size(&g->plain_weight));
    dnnl_primitive_desc_destroy(desc);
    size_t a = convolution->scratch_bytes, b = reorder->scratch_bytes;
    k->offset[CONVOLUTION] = workspace_take(workspace, a > b ? a : b);
    return code;
}

/* conv2d and conv2d_dgrad: the weight is brought into the primitive's layout, then the primitive runs. */
static int weight_first_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    void *scratch = workspace_at(args, k->offset[CONVOLUTION]);
    const void *weight = args->in[1];
    if (k->chunk > 1) {
        float *merged = workspace_at(args, k->offset[MERGED]);
        merge_weight(self, k, weight, merged);
        weight = merged;
    }
    if (k->call[REORDER].primitive) {
        const void *buffer[] = {weight, workspace_at(args, k->offset[REORDER])};
        TRY(onednn_call_run(&k->call[REORDER], self->stream, buffer, scratch));
        weight = buffer[1];
    }
    const void *buffer[] = {args->in[0], weight, args->out[0], args->in[2]};
    return onednn_call_run(&k->call[CONVOLUTION], self->stream, buffer, scratch);
}

static int wgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    void *scratch = workspace_at(args, k->offset[CONVOLUTION]);
    bool reorder = k->call[REORDER].primitive != NULL;
    void *plain = k->chunk > 1 ? workspace_at(args, k->offset[MERGED]) : args->out[0];
    void *weight = reorder ? workspace_at(args, k->offset[REORDER]) : plain;
    const void *buffer[] = {args->in[0], weight, args->in[1], args->out[1]};
    TRY(onednn_call_run(&k->call[CONVOLUTION], self->stream, buffer, scratch));
    if (reorder) {
        const void *back[] = {weight, plain};
        TRY(onednn_call_run(&k->call[REORDER], self->stream, back, scratch));
    }
    if (k->chunk > 1)
        split_weight_gradient(self, k, plain, args->out[0]);
    return 0;
}

int conv2d_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    static const int id[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    const kernel_request *r = &k->request;
    bool bias = tensor_count(&r->in[2]) > 0;
    geometry g;
    dnnl_primitive_desc_t desc;
    if (is_matrix_product(&r->node.attr))
        return linear_prepare(self, k, workspace);
    TRY(describe(self, k, &g, &r->in[0], &r->in[1], &r->out[0]));
    TRY(forward_desc(self, &g, bias, &desc));
    k->launch = weight_first_launch;
    return prepare_calls(self, k, &g, desc, id, bias ? 4 : 3, workspace);
}

int conv2d_dgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    static const int id[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    const kernel_request *r = &k->request;
    geometry g;
    dnnl_convolution_desc_t backward;
    dnnl_primitive_desc_t desc;
    if (is_matrix_product(&r->node.attr))
        return linear_dgrad_prepare(self, k, workspace);
    TRY(describe(self, k, &g, &r->out[0], &r->in[1], &r->in[0]));
    TRY(onednn_check(dnnl_convolution_backward_data_desc_init(&backward, dnnl_convolution_direct, &g.src, &g.weight,
                                                              &g.dst, g.stride, g.pad, g.pad),
                     "convolution"));
    TRY(backward_desc(self, &g, &backward, &desc));
    k->launch = weight_first_launch;
    return prepare_calls(self, k, &g, desc, id, 3, workspace);
}

int conv2d_wgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    static const int id[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_BIAS};
    const kernel_request *r = &k->request;
    bool bias = tensor_count(&r->out[1]) > 0;
    geometry g;
    dnnl_convolution_desc_t backward;
    dnnl_primitive_desc_t desc;
    if (is_matrix_product(&r->node.attr))
        return linear_wgrad_prepare(self, k, workspace);
    TRY(describe(self, k, &g, &r->in[0], &r->out[0], &r->in[1]));
    TRY(onednn_check(dnnl_convolution_backward_weights_desc_init(&backward, dnnl_convolution_direct, &g.src, &g.weight,
                                                                 bias ? &g.bias : NULL, &g.dst, g.stride, g.pad, g.pad),
                     "convolution"));
    TRY(backward_desc(self, &g, &backward, &desc));
    k->launch = wgrad_launch;
    return prepare_calls(self, k, &g, desc, id, bias ? 4 : 3, workspace);
}

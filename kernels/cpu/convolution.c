/* Convolutions by oneDNN: activations stay NHWC, the weight is brought from OHWI into the layout that the
 * primitive chose at each launch (it changes every step), a weight gradient back. A convolution that is a
 * matrix product becomes one; without AVX-512 narrow groups are merged into groups as wide as a vector. */
#include "base/error.h"
#include "cpu.h"

#include <string.h>

enum { CONVOLUTION, REORDER, MERGED };

/* One convolution in one direction: the tensors of the forward or their gradients, and how it is launched. */
typedef struct {
    dnnl_prop_kind_t direction;
    const tensor_desc *x, *w, *y;
    bool bias;
    int id[4]; /* arguments in the order of their buffers; the weight is the second, the bias the last */
    cpu_launch *launch;
} problem;

static bool is_matrix_product(const op_attr *attr)
{
    return attr->kernel == 1 && attr->stride == 1 && attr->pad == 0 && attr->groups == 1;
}

/* How many groups become one whose weight has zeros between them. With AVX2 oneDNN leaves groups narrower than its
 * vector of 8 to its slowest kernels, two to three times as slow as this for 4 channels. With AVX-512 it masks them
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

static int activation(onednn_layout *out, const tensor_desc *t)
{
    int64_t c = t->dim[3], w = t->dim[2], h = t->dim[1];
    int64_t dim[] = {t->dim[0], c, h, w}, stride[] = {h * w * c, 1, w * c, c};
    return onednn_strided(out, 4, dim, stride);
}

/* As oneDNN sees it: [G],O,I,H,W. `plain` is ours, `best` the primitive's choice. */
static int weights(onednn_layout *plain, onednn_layout *best, const tensor_desc *t, int64_t groups, int64_t i)
{
    int64_t o = t->dim[0] / groups, h = t->dim[1], w = t->dim[2];
    int64_t dim[] = {groups, o, i, h, w}, stride[] = {o * h * w * i, h * w * i, 1, w * i, i};
    int skip = groups == 1; /* the leading dimension exists only in grouped convolutions */
    TRY(onednn_strided(plain, 5 - skip, dim + skip, stride + skip));
    return onednn_any(best, 5 - skip, dim + skip);
}

static int describe(const cpu_backend *self, kernel *k, const problem *p, onednn_convolution *c, onednn_layout *plain)
{
    const op_attr *attr = &k->request.node.attr;
    const tensor_desc *w = p->w;
    int64_t o[] = {p->y->dim[3]}, one[] = {1};
    CHECK(attr->groups >= 1 && w->dim[0] == p->y->dim[3] && (int64_t)w->dim[3] * attr->groups == p->x->dim[3],
          ERROR_SHAPE, "convolution of %d channels to %d in %d groups: the weight does not fit", p->x->dim[3],
          p->y->dim[3], attr->groups);
    *c = (onednn_convolution){.direction = p->direction,
                              .stride = {attr->stride, attr->stride},
                              .pad = {attr->pad, attr->pad},
                              .channels = p->x->dim[3],
                              .map = p->y->dim[1] > p->y->dim[2] ? p->y->dim[1] : p->y->dim[2]};
    k->chunk = groups_merged(self, attr->groups, w);
    TRY(activation(&c->src, p->x));
    TRY(activation(&c->dst, p->y));
    TRY(weights(plain, &c->weight, w, attr->groups / k->chunk, w->dim[3] * k->chunk));
    return p->bias ? onednn_strided(&c->bias, 1, o, one) : 0;
}

static void convolution_destroy(onednn_convolution *c)
{
    onednn_layout_destroy(c->src);
    onednn_layout_destroy(c->weight);
    onednn_layout_destroy(c->bias);
    onednn_layout_destroy(c->dst);
}

/* jit_1x1 writes behind its scratchpad where a strided 1x1 convolution has fewer channels than a vector: the gradient
 * of its weight comes out wrong, or never. Seen with AVX2 in oneDNN 2.6, 3.2 and 3.13, and reported of AVX-512
 * (oneDNN's issue 6035). */
static bool is_faulty(const onednn_convolution *c, const char *name)
{
    int64_t lanes = strstr(name, "avx512") ? 16 : 8;
    return c->direction == dnnl_backward_weights && c->channels < lanes && c->stride[0] > 1 &&
           strncmp(name, "jit_1x1:", 8) == 0;
}

/* brgconv is half as fast as oneDNN's next choice on feature maps of 4x4 and smaller. */
static bool is_slow(const onednn_convolution *c, const char *name)
{
    enum { SMALL_MAP = 4 };
    return c->direction == dnnl_forward_training && c->map <= SMALL_MAP && strncmp(name, "brgconv:", 8) == 0;
}

static bool is_refused(const onednn_convolution *c, const_dnnl_primitive_desc_t offered)
{
    const char *name = NULL;
    if (dnnl_primitive_desc_query(offered, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
        return false;
    return is_faulty(c, name) || is_slow(c, name);
}

/* A backward is described with its forward, which has no bias here. */
static int choose(const cpu_backend *self, const onednn_convolution *c, dnnl_primitive_desc_t *out)
{
    onednn_convolution without_bias = *c;
    dnnl_primitive_desc_t forward;
    if (c->direction == dnnl_forward_training)
        return onednn_convolution_desc(out, self->engine, c, NULL, is_refused);
    without_bias.direction = dnnl_forward_training;
    without_bias.bias = NULL;
    TRY(onednn_convolution_desc(&forward, self->engine, &without_bias, NULL, is_refused));
    int code = onednn_convolution_desc(out, self->engine, c, forward, is_refused);
    dnnl_primitive_desc_destroy(forward);
    return code;
}

/* Makes both calls and lays out the workspace. */
static int prepare_calls(const cpu_backend *self, kernel *k, const problem *p, const_dnnl_primitive_desc_t desc,
                         const_onednn_layout plain, size_t *workspace)
{
    onednn_call *convolution = &k->call[CONVOLUTION], *reorder = &k->call[REORDER];
    bool gradient = p->direction == dnnl_backward_weights;
    int count = p->bias ? 4 : 3;
    const_onednn_layout weight = dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, p->id[1]);
    int code = onednn_call_create(convolution, self->engine, desc, count, p->id);
    if (code == 0)
        code = gradient ? onednn_reorder_create(reorder, self->engine, weight, plain)
                        : onednn_reorder_create(reorder, self->engine, plain, weight);
    if (code == 0 && reorder->primitive)
        k->offset[REORDER] = workspace_take(workspace, dnnl_memory_desc_get_size(weight));
    if (k->chunk > 1)
        k->offset[MERGED] = workspace_take(workspace, dnnl_memory_desc_get_size(plain));
    size_t a = convolution->scratch_bytes, b = reorder->scratch_bytes;
    k->offset[CONVOLUTION] = workspace_take(workspace, a > b ? a : b);
    return code;
}

static int prepare(const cpu_backend *self, kernel *k, const problem *p, size_t *workspace)
{
    onednn_convolution c = {0};
    onednn_layout plain = NULL;
    dnnl_primitive_desc_t desc = NULL;
    k->launch = p->launch;
    int code = describe(self, k, p, &c, &plain);
    if (code == 0)
        code = choose(self, &c, &desc);
    if (code == 0)
        code = prepare_calls(self, k, p, desc, plain, workspace);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    convolution_destroy(&c);
    onednn_layout_destroy(plain);
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
    const kernel_request *r = &k->request;
    if (is_matrix_product(&r->node.attr))
        return linear_prepare(self, k, workspace);
    return prepare(self, k,
                   &(problem){.direction = dnnl_forward_training,
                              .x = &r->in[0],
                              .w = &r->in[1],
                              .y = &r->out[0],
                              .bias = tensor_count(&r->in[2]) > 0,
                              .id = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
                              .launch = weight_first_launch},
                   workspace);
}

int conv2d_dgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    if (is_matrix_product(&r->node.attr))
        return linear_dgrad_prepare(self, k, workspace);
    return prepare(self, k,
                   &(problem){.direction = dnnl_backward_data,
                              .x = &r->out[0],
                              .w = &r->in[1],
                              .y = &r->in[0],
                              .id = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                              .launch = weight_first_launch},
                   workspace);
}

int conv2d_wgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    if (is_matrix_product(&r->node.attr))
        return linear_wgrad_prepare(self, k, workspace);
    return prepare(self, k,
                   &(problem){.direction = dnnl_backward_weights,
                              .x = &r->in[0],
                              .w = &r->out[0],
                              .y = &r->in[1],
                              .bias = tensor_count(&r->out[1]) > 0,
                              .id = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_BIAS},
                              .launch = wgrad_launch},
                   workspace);
}

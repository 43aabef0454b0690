/* Batch normalisation of a product with the weight W[O, C], from the moments of x and with scaled weights
 * (docs/method.md). What has the size of W is done here by one thread, in float64 where it is not a product. */
#include "base/error.h"
#include "batch_norm.h"
#include "product.h"

/* ---- moments and sums ---- */

enum { MOMENTS_PARTS, MOMENTS_SUMS };

static int moments_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    int64_t rows = tensor_rows(x), channels = x->dim[3];
    float *gram = args->out[0], *x_sum = gram + channels * channels;
    double *sums = workspace_at(args, k->offset[MOMENTS_SUMS]);
    TRY(weight_gradient(args->in[0], args->in[0], rows, channels, channels, gram, channels));
    column_sums(self, args->in[0], rows, channels, false, sums, workspace_at(args, k->offset[MOMENTS_PARTS]));
    for (int64_t c = 0; c < channels; c++)
        x_sum[c] = (float)sums[c];
    return 0;
}

int channel_moments_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    int64_t channels = k->request.in[0].dim[3];
    k->offset[MOMENTS_PARTS] = workspace_take(workspace, column_sums_bytes(self, channels));
    k->offset[MOMENTS_SUMS] = workspace_take(workspace, (size_t)channels * sizeof(double));
    k->launch = moments_launch;
    return 0;
}

/* A weight is a matrix, whatever its layout. */
typedef struct {
    int64_t outputs, channels;
} weight_shape;

static weight_shape shape_of(const tensor_desc *w)
{
    return (weight_shape){w->dim[0], tensor_count(w) / w->dim[0]};
}

/* W G, of the shape of W. */
static int times_gram(const float *w, const float *gram, weight_shape s, float *w_gram)
{
    return onednn_check(dnnl_sgemm('N', 'N', s.outputs, s.channels, s.channels, 1.0F, w, s.channels, gram, s.channels,
                                   0.0F, w_gram, s.channels),
                        "sgemm");
}

static double row_product(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static int sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    weight_shape s = shape_of(&k->request.in[1]);
    const float *gram = args->in[0], *x_sum = gram + s.channels * s.channels, *w = args->in[1];
    float *w_gram = workspace_at(args, k->offset[0]);
    double *sums = args->out[0];
    TRY(times_gram(w, gram, s, w_gram));
    for (int64_t o = 0; o < s.outputs; o++) {
        sums[o] = row_product(w + o * s.channels, x_sum, s.channels);
        sums[s.outputs + o] = row_product(w + o * s.channels, w_gram + o * s.channels, s.channels);
    }
    return 0;
}

int linear_bn_sums_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    k->offset[0] = workspace_take(workspace, (size_t)tensor_count(&k->request.in[1]) * sizeof(float));
    k->launch = sums_launch;
    return 0;
}

/* ---- the normalised feature map ---- */

static void scale_row(const float *from, double scale, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)(scale * (double)from[i]);
}

enum { FOLDED_WEIGHT = PRODUCT_SECOND, FOLDED_BIAS };

static int linear_bn_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    weight_shape s = shape_of(&k->request.in[1]);
    const float *w = args->in[1], *gamma = args->in[3], *beta = args->in[4], *packed;
    const double *sums = args->in[2];
    const op_attr *attr = &k->request.node.attr;
    float *folded = workspace_at(args, k->offset[FOLDED_WEIGHT]), *bias = workspace_at(args, k->offset[FOLDED_BIAS]);
    for (int64_t o = 0; o < s.outputs; o++) {
        double scale = (double)gamma[o] * bn_batch_inverse_std(sums, s.outputs, o, attr);
        scale_row(w + o * s.channels, scale, s.channels, folded + o * s.channels);
        bias[o] = (float)((double)beta[o] - scale * sums[o] / attr->count);
    }
    TRY(product_pack(self, k, 0, args, folded, &packed));
    return product_run(self, k, 0, args, args->in[0], packed, bias, args->out[0]);
}

int linear_bn_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    weight_shape s = shape_of(&r->in[1]);
    product p = {.rows = tensor_rows(&r->in[0]), .k = s.channels, .n = s.outputs, .stride_k = 1, .bias = true};
    p.stride_n = s.channels;
    p.relu = r->node.attr.relu;
    p.pack = product_worth_packing(p.rows, p.k, p.n);
    k->offset[FOLDED_WEIGHT] = workspace_take(workspace, (size_t)(s.outputs * s.channels) * sizeof(float));
    k->offset[FOLDED_BIAS] = workspace_take(workspace, (size_t)s.outputs * sizeof(float));
    k->launch = linear_bn_launch;
    return product_prepare(self, k, 0, &p, workspace);
}

/* ---- gradients ---- */

int linear_bn_grad_sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    weight_shape s = shape_of(&k->request.in[2]);
    const float *of_g = args->in[0], *g_sum = args->in[1], *w = args->in[2];
    const double *sums = args->in[3];
    const op_attr *attr = &k->request.node.attr;
    double *gsums = args->out[0];
    for (int64_t o = 0; o < s.outputs; o++) {
        double of_y = row_product(of_g + o * s.channels, w + o * s.channels, s.channels);
        double mean = sums[o] / attr->count;
        gsums[o] = (double)g_sum[o];
        gsums[s.outputs + o] = (of_y - mean * (double)g_sum[o]) * bn_batch_inverse_std(sums, s.outputs, o, attr);
    }
    return 0;
}

/* Of an output: dy = from_g * g + from_y * y + constant, the dx of bn_grad with xhat multiplied out. */
typedef struct {
    double from_g, from_y, constant;
} gradient_terms;

static gradient_terms gradient_of(const double *sums, const float *gamma, const double *gsums, int64_t outputs,
                                  int64_t o, const op_attr *attr)
{
    double inverse_std = bn_batch_inverse_std(sums, outputs, o, attr), from_g = (double)gamma[o] * inverse_std;
    double from_y = -from_g * inverse_std * gsums[outputs + o] / attr->count;
    return (gradient_terms){from_g, from_y, -from_g * gsums[o] / attr->count - from_y * sums[o] / attr->count};
}

static int wgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    weight_shape s = shape_of(&k->request.in[1]);
    const float *of_g = args->in[0], *gram = args->in[5], *x_sum = gram + s.channels * s.channels;
    float *w_gram = workspace_at(args, k->offset[0]), *dw = args->out[0];
    TRY(times_gram(args->in[1], gram, s, w_gram));
    for (int64_t o = 0; o < s.outputs; o++) {
        gradient_terms a = gradient_of(args->in[2], args->in[3], args->in[4], s.outputs, o, &k->request.node.attr);
        for (int64_t i = o * s.channels, c = 0; c < s.channels; i++, c++)
            dw[i] = (float)(a.from_g * (double)of_g[i] + a.from_y * (double)w_gram[i] + a.constant * (double)x_sum[c]);
    }
    return 0;
}

int linear_bn_wgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    k->offset[0] = workspace_take(workspace, (size_t)tensor_count(&k->request.in[1]) * sizeof(float));
    k->launch = wgrad_launch;
    return 0;
}

/* Of dx = x from_x [C, C] + constant, then + g from_g [O, C]. */
enum { FROM_G = PRODUCT_CALLS, FROM_X, CONSTANT, SCALED };

typedef struct {
    float *from_g, *from_x, *constant;
} dgrad_weights;

static int fold_dgrad(const kernel *k, const kernel_args *args, dgrad_weights f)
{
    weight_shape s = shape_of(&k->request.in[2]);
    const float *w = args->in[2];
    float *scaled = workspace_at(args, k->offset[SCALED]);
    for (int64_t c = 0; c < s.channels; c++)
        f.constant[c] = 0;
    for (int64_t o = 0; o < s.outputs; o++) {
        gradient_terms a = gradient_of(args->in[3], args->in[4], args->in[5], s.outputs, o, &k->request.node.attr);
        scale_row(w + o * s.channels, a.from_g, s.channels, f.from_g + o * s.channels);
        scale_row(w + o * s.channels, a.from_y, s.channels, scaled + o * s.channels);
        for (int64_t c = 0; c < s.channels; c++)
            f.constant[c] += (float)a.constant * w[o * s.channels + c];
    }
    return onednn_check(dnnl_sgemm('T', 'N', s.channels, s.channels, s.outputs, 1.0F, w, s.channels, scaled, s.channels,
                                   0.0F, f.from_x, s.channels),
                        "sgemm");
}

static int dgrad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    weight_shape s = shape_of(&k->request.in[2]);
    int64_t rows = tensor_rows(&k->request.in[0]);
    const float *g = args->in[0], *x = args->in[1], *from_x, *from_g;
    float *dx = args->out[0];
    dgrad_weights f = {workspace_at(args, k->offset[FROM_G]), workspace_at(args, k->offset[FROM_X]),
                       workspace_at(args, k->offset[CONSTANT])};
    TRY(fold_dgrad(k, args, f));
    TRY(product_pack(self, k, 0, args, f.from_x, &from_x));
    TRY(product_pack(self, k, PRODUCT_SECOND, args, f.from_g, &from_g));
    for (int64_t row = 0; row < rows; row += k->chunk) {
        TRY(product_run(self, k, 0, args, x + row * s.channels, from_x, f.constant, dx + row * s.channels));
        TRY(product_run(self, k, PRODUCT_SECOND, args, g + row * s.outputs, from_g, NULL, dx + row * s.channels));
    }
    return 0;
}

int linear_bn_dgrad_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const kernel_request *r = &k->request;
    weight_shape s = shape_of(&r->in[2]);
    size_t of_weight = (size_t)(s.outputs * s.channels) * sizeof(float), row = (size_t)s.channels * sizeof(float);
    k->chunk = product_chunk_rows(tensor_rows(&r->in[0]));
    product x = {.rows = k->chunk, .k = s.channels, .n = s.channels, .stride_k = s.channels, .stride_n = 1};
    product g = {.rows = k->chunk, .k = s.outputs, .n = s.channels, .stride_k = s.channels, .stride_n = 1};
    x.pack = g.pack = x.bias = g.accumulate = true;
    k->offset[FROM_G] = workspace_take(workspace, of_weight);
    k->offset[FROM_X] = workspace_take(workspace, row * (size_t)s.channels);
    k->offset[CONSTANT] = workspace_take(workspace, row);
    k->offset[SCALED] = workspace_take(workspace, of_weight);
    k->launch = dgrad_launch;
    TRY(product_prepare(self, k, 0, &x, workspace));
    return product_prepare(self, k, PRODUCT_SECOND, &g, workspace);
}

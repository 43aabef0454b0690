/* Convolutions, as matrix products over the patches of one image at a time, so that the workspace does not grow
 * with the batch. Invariant: column (ky, kx, c) of the patch matrix meets element (ky, kx, c) of an OHWI weight row.
 * Nothing is kept between calls. */
#include <string.h>

#include "reference.h"

/* One convolution: `x` is its input, `y` its output, for the gradients too. */
typedef struct {
    int n, h, w, c, oh, ow, o;
    int kernel, stride, pad, groups;
    int rows;      /* output positions of an image */
    int width;     /* elements of a patch of one group */
    int group_in;  /* input channels of a group */
    int group_out; /* output channels of a group */
    size_t x_size; /* elements of an image */
    size_t y_size;
    size_t weight_size; /* elements of the weight of one group */
} convolution;

static convolution describe(const op_attr *attr, const tensor_desc *x, const tensor_desc *y)
{
    convolution v = {.n = x->dim[0],
                     .h = x->dim[1],
                     .w = x->dim[2],
                     .c = x->dim[3],
                     .oh = y->dim[1],
                     .ow = y->dim[2],
                     .o = y->dim[3],
                     .kernel = attr->kernel,
                     .stride = attr->stride,
                     .pad = attr->pad,
                     .groups = attr->groups};
    v.rows = v.oh * v.ow;
    v.group_in = v.c / v.groups;
    v.group_out = v.o / v.groups;
    v.width = v.kernel * v.kernel * v.group_in;
    v.x_size = (size_t)v.h * (size_t)v.w * (size_t)v.c;
    v.y_size = (size_t)v.rows * (size_t)v.o;
    v.weight_size = (size_t)v.group_out * (size_t)v.width;
    return v;
}

static convolution describe_request(const kernel_request *r)
{
    switch (r->node.op) {
    case OP_CONV2D:
        return describe(&r->node.attr, &r->in[0], &r->out[0]);
    case OP_CONV2D_DGRAD:
        return describe(&r->node.attr, &r->out[0], &r->in[0]);
    default:
        return describe(&r->node.attr, &r->in[0], &r->in[1]);
    }
}

size_t reference_conv2d_workspace(const kernel_request *request)
{
    convolution v = describe_request(request);
    return (size_t)v.rows * (size_t)v.width * sizeof(double);
}

/* Offset in an image of the channels that kernel element (ky, kx) meets at an output position; -1 in the padding. */
static int64_t source_offset(const convolution *v, int group, int row, int ky, int kx)
{
    int y = row / v->ow * v->stride + ky - v->pad;
    int x = row % v->ow * v->stride + kx - v->pad;
    if (y < 0 || y >= v->h || x < 0 || x >= v->w)
        return -1;
    return ((int64_t)y * v->w + x) * v->c + group * v->group_in;
}

static void gather_patches(const convolution *v, int group, const double *image, double *patches)
{
    size_t bytes = (size_t)v->group_in * sizeof(double);
    for (int row = 0; row < v->rows; row++)
        for (int ky = 0; ky < v->kernel; ky++)
            for (int kx = 0; kx < v->kernel; kx++, patches += v->group_in) {
                int64_t offset = source_offset(v, group, row, ky, kx);
                if (offset < 0)
                    memset(patches, 0, bytes);
                else
                    memcpy(patches, image + offset, bytes);
            }
}

static void scatter_patches(const convolution *v, int group, const double *patches, double *image)
{
    for (int row = 0; row < v->rows; row++)
        for (int ky = 0; ky < v->kernel; ky++)
            for (int kx = 0; kx < v->kernel; kx++, patches += v->group_in) {
                int64_t offset = source_offset(v, group, row, ky, kx);
                for (int c = 0; offset >= 0 && c < v->group_in; c++)
                    image[offset + c] += patches[c];
            }
}

/* Views of one group: its channels of the output, its rows of the weight. */
static blas_matrix group_map(const convolution *v, const double *y, int image, int group, bool transposed)
{
    return (blas_matrix){y + (size_t)image * v->y_size + group * v->group_out, v->o, transposed};
}

static blas_matrix group_weight(const convolution *v, const double *w, int group, bool transposed)
{
    return (blas_matrix){w + (size_t)group * v->weight_size, v->width, transposed};
}

int reference_conv2d(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *x = args->in[0], *w = args->in[1], *bias = args->in[2];
    double *y = args->out[0], *patches = args->workspace;
    convolution v = describe_request(request);
    for (int i = 0; i < v.n; i++)
        for (int g = 0; g < v.groups; g++) {
            double *out = y + (size_t)i * v.y_size + g * v.group_out;
            gather_patches(&v, g, x + (size_t)i * v.x_size, patches);
            blas_multiply(&self->blas, v.rows, v.group_out, v.width, (blas_matrix){patches, v.width, false},
                          group_weight(&v, w, g, true), 0.0, out, v.o);
        }
    for (int64_t row = 0; bias && row < tensor_rows(&request->out[0]); row++)
        for (int c = 0; c < v.o; c++)
            y[row * v.o + c] += bias[c];
    if (args->out[1])
        reference_channel_sums(&request->out[0], y, args->out[1]);
    return 0;
}

int reference_conv2d_dgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *dy = args->in[0], *w = args->in[1];
    double *dx = args->out[0], *patches = args->workspace;
    convolution v = describe_request(request);
    memset(dx, 0, tensor_bytes(&request->out[0]));
    for (int i = 0; i < v.n; i++)
        for (int g = 0; g < v.groups; g++) {
            blas_multiply(&self->blas, v.rows, v.width, v.group_out, group_map(&v, dy, i, g, false),
                          group_weight(&v, w, g, false), 0.0, patches, v.width);
            scatter_patches(&v, g, patches, dx + (size_t)i * v.x_size);
        }
    return 0;
}

int reference_conv2d_wgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *x = args->in[0], *dy = args->in[1];
    double *dw = args->out[0], *dbias = args->out[1], *patches = args->workspace;
    convolution v = describe_request(request);
    for (int i = 0; dw && i < v.n; i++)
        for (int g = 0; g < v.groups; g++) {
            gather_patches(&v, g, x + (size_t)i * v.x_size, patches);
            blas_multiply(&self->blas, v.group_out, v.width, v.rows, group_map(&v, dy, i, g, true),
                          (blas_matrix){patches, v.width, false}, i == 0 ? 0.0 : 1.0, dw + (size_t)g * v.weight_size,
                          v.width);
        }
    if (dbias)
        reference_bias_grad(&request->in[1], dy, dbias);
    return 0;
}

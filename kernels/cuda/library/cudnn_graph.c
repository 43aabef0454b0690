/* Owns the description of a convolution for cuDNN. NHWC and OHWI are what cuDNN calls N,C,H,W and K,C,R,S with channels
 * of stride 1; groups follow from the channels. One thread per scope. */
#include "cudnn_graph.h"
#include "graph/node.h"

enum { ALIGNMENT = 16 };

static cudnnDataType_t data_type(uint8_t type)
{
    return type == DTYPE_F16 ? CUDNN_DATA_HALF : type == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* A tensor {n, h, w, c} in memory; a virtual one never is in memory. */
static cudnnBackendDescriptor_t tensor(cudnn_scope *s, int64_t uid, cudnnDataType_t type, const int64_t nhwc[4],
                                       bool is_virtual)
{
    int64_t h = nhwc[1], w = nhwc[2], c = nhwc[3], alignment = ALIGNMENT;
    int64_t dim[] = {nhwc[0], c, h, w}, stride[] = {h * w * c, 1, w * c, c};
    cudnnBackendDescriptor_t d = cudnn_new(s, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnn_set_ints(s, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &uid);
    cudnn_set(s, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    cudnn_set_ints(s, d, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, dim);
    cudnn_set_ints(s, d, CUDNN_ATTR_TENSOR_STRIDES, 4, stride);
    cudnn_set_ints(s, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment);
    cudnn_set(s, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    cudnn_finalize(s, d, "cuDNN tensor");
    return d;
}

static cudnnBackendDescriptor_t geometry(cudnn_scope *s, const cuda_convolution_desc *desc)
{
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dims = 2, pad[] = {desc->pad, desc->pad}, stride[] = {desc->stride, desc->stride},
                  dilation[] = {1, 1};
    cudnnBackendDescriptor_t d = cudnn_new(s, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnn_set_ints(s, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &dims);
    cudnn_set(s, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    cudnn_set(s, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    cudnn_set_ints(s, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, pad);
    cudnn_set_ints(s, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, pad);
    cudnn_set_ints(s, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2, stride);
    cudnn_set_ints(s, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, dilation);
    cudnn_finalize(s, d, "cuDNN convolution");
    return d;
}

/* The names of an operation's attributes, which differ with the direction. */
typedef struct {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t geometry, x, w, y, alpha, beta;
} operation_names;

static const operation_names names_of[] = {
    [CUDA_CONVOLUTION_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [CUDA_CONVOLUTION_DGRAD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [CUDA_CONVOLUTION_WGRAD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static cudnnBackendDescriptor_t operation(cudnn_scope *s, const cuda_convolution_desc *desc, cudnnBackendDescriptor_t x,
                                          cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y)
{
    const operation_names *names = &names_of[desc->kind];
    const float one = 1.0F, zero = 0.0F;
    cudnnBackendDescriptor_t shape = geometry(s, desc), d = cudnn_new(s, names->operation);
    cudnn_set_descriptor(s, d, names->geometry, shape);
    cudnn_set_descriptor(s, d, names->x, x);
    cudnn_set_descriptor(s, d, names->w, w);
    cudnn_set_descriptor(s, d, names->y, y);
    cudnn_set(s, d, names->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    cudnn_set(s, d, names->beta, CUDNN_TYPE_FLOAT, 1, &zero);
    cudnn_finalize(s, d, "cuDNN convolution operation");
    return d;
}

/* y = product + bias. */
static cudnnBackendDescriptor_t bias_operation(cudnn_scope *s, cudnnBackendDescriptor_t product,
                                               cudnnBackendDescriptor_t bias, cudnnBackendDescriptor_t y)
{
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t add = cudnn_new(s, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnn_set(s, add, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    cudnn_set(s, add, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    cudnn_finalize(s, add, "cuDNN addition");
    cudnnBackendDescriptor_t d = cudnn_new(s, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, add);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, product);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, bias);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    cudnn_finalize(s, d, "cuDNN addition of a bias");
    return d;
}

/* The sums of y and of its squares over all but the channels. */
static cudnnBackendDescriptor_t statistics_operation(cudnn_scope *s, cudnnBackendDescriptor_t y,
                                                     cudnnBackendDescriptor_t sum, cudnnBackendDescriptor_t square_sum)
{
    const cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t d = cudnn_new(s, CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR);
    cudnn_set(s, d, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode);
    cudnn_set(s, d, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, y);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, sum);
    cudnn_set_descriptor(s, d, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, square_sum);
    cudnn_finalize(s, d, "cuDNN statistics of a convolution");
    return d;
}

cudnnBackendDescriptor_t cudnn_convolution_graph(cudnn_scope *s, const cuda_convolution_desc *desc)
{
    const int64_t x_dim[] = {desc->batch, desc->height, desc->width, desc->channels};
    const int64_t w_dim[] = {desc->out_channels, desc->kernel, desc->kernel, desc->channels / desc->groups};
    const int64_t y_dim[] = {desc->batch, desc->out_height, desc->out_width, desc->out_channels};
    const int64_t vector_dim[] = {1, 1, 1, desc->out_channels};
    const cudnnDataType_t type = data_type(desc->type);

    cudnnBackendDescriptor_t x = tensor(s, UID_X, type, x_dim, false), w = tensor(s, UID_W, type, w_dim, false),
                             y = tensor(s, UID_Y, type, y_dim, false), operations[3];
    int64_t count = 1;
    if (desc->bias) { /* in another dtype it would leave nothing but plans that are compiled at run time */
        cudnnBackendDescriptor_t product = tensor(s, UID_PRODUCT, CUDNN_DATA_FLOAT, y_dim, true),
                                 bias = tensor(s, UID_BIAS, type, vector_dim, false);
        operations[0] = operation(s, desc, x, w, product);
        operations[count++] = bias_operation(s, product, bias, y);
    } else {
        operations[0] = operation(s, desc, x, w, y);
    }
    if (desc->statistics)
        operations[count++] = statistics_operation(s, y, tensor(s, UID_SUM, CUDNN_DATA_FLOAT, vector_dim, false),
                                                   tensor(s, UID_SQUARE_SUM, CUDNN_DATA_FLOAT, vector_dim, false));
    cudnnBackendDescriptor_t graph = cudnn_new(s, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    cudnn_set(s, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, operations);
    cudnn_finalize(s, graph, "cuDNN graph");
    return graph;
}

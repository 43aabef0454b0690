/* Owns the convolutions of cuDNN: an operation graph for each shape, the plan chosen for it, its runs.
 * Invariant: a plan obeys the options that the convolutions were opened with, wherever it came from. One thread at a
 * time. NHWC and OHWI are what cuDNN calls N,C,H,W and K,C,R,S with channels of stride 1. */
#include "convolution.h"
#include "base/error.h"
#include "cudnn_plan.h"
#include "graph/node.h"
#include "plan_cache.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_PRODUCT };
enum { MAX_TUNED = 6, KEY_BYTES = 256, ALIGNMENT = 16 };

static const size_t workspace_limit = (size_t)1 << 30;

struct cuda_convolutions {
    const cuda_libraries *api;
    cudaStream_t stream;
    bool tf32, deterministic, tune;
    cudnnHandle_t handle; /* NULL without a GPU */
    cudnn_scope scope;    /* of the device description */
    cudnnBackendDescriptor_t device;
    plan_cache *cache; /* NULL for none */
};

struct cuda_convolution {
    const cuda_convolutions *owner;
    cuda_convolution_desc desc;
    cudnn_scope scope; /* what the plan refers to */
    cudnn_plan plan;
    bool from_cache;
};

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
    const int64_t dims = 2, pad[] = {desc->pad, desc->pad}, stride[] = {desc->stride, desc->stride}, dilation[] = {1, 1};
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

static cudnnBackendDescriptor_t operation_graph(cudnn_scope *s, const cuda_convolution_desc *desc)
{
    const int64_t x_dim[] = {desc->batch, desc->height, desc->width, desc->channels};
    const int64_t w_dim[] = {desc->out_channels, desc->kernel, desc->kernel, desc->channels / desc->groups};
    const int64_t y_dim[] = {desc->batch, desc->out_height, desc->out_width, desc->out_channels};
    const int64_t bias_dim[] = {1, 1, 1, desc->out_channels};
    cudnnDataType_t type[3] = {data_type(desc->type), data_type(desc->type), data_type(desc->type)};
    static const int written[] = {[CUDA_CONVOLUTION_FORWARD] = 2, [CUDA_CONVOLUTION_DGRAD] = 0,
                                  [CUDA_CONVOLUTION_WGRAD] = 1};
    type[written[desc->kind]] = data_type(desc->result);

    cudnnBackendDescriptor_t x = tensor(s, UID_X, type[0], x_dim, false), w = tensor(s, UID_W, type[1], w_dim, false),
                             y = tensor(s, UID_Y, type[2], y_dim, false), operations[2];
    int64_t count = 1;
    if (desc->bias) {
        cudnnBackendDescriptor_t product = tensor(s, UID_PRODUCT, CUDNN_DATA_FLOAT, y_dim, true),
                                 bias = tensor(s, UID_BIAS, CUDNN_DATA_FLOAT, bias_dim, false);
        operations[0] = operation(s, desc, x, w, product);
        operations[count++] = bias_operation(s, product, bias, y);
    } else {
        operations[0] = operation(s, desc, x, w, y);
    }
    cudnnBackendDescriptor_t graph = cudnn_new(s, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    cudnn_set(s, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, operations);
    cudnn_finalize(s, graph, "cuDNN graph");
    return graph;
}

/* The device's name and kind as a name for its folder of plans. Of cuDNN's JSON only these are read: the rest differs
 * between GPUs of one model. */
static void name_cache(const cuda_convolutions *c, const char *json, char *name, size_t bytes)
{
    int sm = 0, multiprocessors = 0, version = c->api->version[CUDA_CUDNN];
    char device[64] = "gpu";
    const char *found;
    if ((found = strstr(json, "\"deviceVer\":")))
        sscanf(found, "\"deviceVer\":%d", &sm);
    if ((found = strstr(json, "\"multiProcessorCount\":")))
        sscanf(found, "\"multiProcessorCount\":%d", &multiprocessors);
    if ((found = strstr(json, "\"deviceName\":")))
        sscanf(found, "\"deviceName\":\"%63[^\"]", device);
    snprintf(name, bytes, "cudnn-%d.%d.%d-sm%d-%s-%d", version / 10000, version % 10000 / 100, version % 100, sm / 10,
             device, multiprocessors);
}

static int open_cache(cuda_convolutions *c, const char *folder)
{
    char json[4096], name[160];
    int64_t length = 0;
    TRY(cudnn_check(c->api,
                    c->api->cudnnBackendGetAttribute(c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, sizeof json - 1, &length, json),
                    "description of the GPU"));
    json[length < (int64_t)sizeof json ? length : 0] = '\0';
    name_cache(c, json, name, sizeof name);
    return plan_cache_open(&c->cache, folder, name);
}

static int describe_device(cuda_convolutions *c, const char *json)
{
    c->device = cudnn_new(&c->scope, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    if (json) {
        cudnn_set(&c->scope, c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                  (int64_t)strlen(json), json);
    } else {
        TRY(cudnn_check(c->api, c->api->cudnnCreate(&c->handle), "cuDNN"));
        TRY(cudnn_check(c->api, c->api->cudnnSetStream(c->handle, c->stream), "stream of cuDNN"));
        cudnn_set(&c->scope, c->device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle);
    }
    cudnn_finalize(&c->scope, c->device, "description of the GPU for cuDNN");
    return cudnn_scope_status(&c->scope);
}

int cuda_convolutions_open(cuda_convolutions **out, const cuda_libraries *libraries,
                           const cuda_convolutions_options *options)
{
    TRY(cuda_library_check(libraries, CUDA_CUDNN));
    cuda_convolutions *c = calloc(1, sizeof *c);
    CHECK(c, ERROR_MEMORY, "no memory for the convolutions");
    c->api = libraries;
    c->stream = options->stream;
    c->tf32 = options->tf32;
    c->deterministic = options->deterministic;
    c->tune = options->tune && !options->deterministic && !options->device;
    cudnn_scope_init(&c->scope, libraries);
    int code = describe_device(c, options->device);
    if (code < 0) {
        cuda_convolutions_close(c);
        return code;
    }
    if (options->cache && open_cache(c, options->cache) < 0)
        c->cache = NULL; /* as where nothing is cached yet */
    *out = c;
    return 0;
}

void cuda_convolutions_close(cuda_convolutions *c)
{
    if (!c)
        return;
    plan_cache_close(c->cache);
    cudnn_scope_free(&c->scope);
    if (c->handle)
        c->api->cudnnDestroy(c->handle);
    free(c);
}

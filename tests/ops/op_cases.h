/* The cases of the op tests: one list of layers, each row giving all the ops that the layer consists of, forward and
 * backward. The same list drives every mode (against the reference, gradients, sentinels) on every backend. */
#ifndef TESKD_TESTS_OP_CASES_H
#define TESKD_TESTS_OP_CASES_H

#include "kernels/backend.h"

/* What a layer consists of; the order is that of the requests that layer_requests makes. */
typedef enum {
    LAYER_CONV2D,        /* conv2d, conv2d_dgrad, conv2d_wgrad */
    LAYER_LINEAR,        /* linear, linear_dgrad, linear_wgrad */
    LAYER_CONCAT_LINEAR, /* concat_linear, concat_linear_dgrad, concat_linear_wgrad */
    LAYER_LINEAR_BN,     /* channel_moments, linear_bn_sums, linear_bn, linear_bn_grad_sums, linear_bn_wgrad,
                            linear_bn_dgrad */
    LAYER_BATCH_NORM,    /* bn_sums, bn_normalize, bn_grad_sums, bn_grad, bn_param_grad, bn_running, bn_inference,
                            zero */
    LAYER_ADD,           /* add */
    LAYER_CONCAT,        /* concat, channel_slice of the first part, channel_slice of the second */
    LAYER_UPSAMPLE2X,    /* upsample2x, upsample2x_grad */
    LAYER_UPSAMPLE_BN,   /* upsample_bn_sums, upsample_bn, upsample_bn_grad_sums, upsample_bn_grad, bn_param_grad,
                            upsample_bn_inference */
    LAYER_PATCHIFY,      /* patchify, unpatchify */
    LAYER_FOLD,          /* fold_fuse_weight, fold_fuse_weight_grad */
    LAYER_POOL,          /* global_average_pool, global_average_pool_grad */
    LAYER_RELU,          /* relu, relu_grad */
    LAYER_MAX_POOL,      /* max_pool, max_pool_grad */
    LAYER_EXCITE,        /* excite, excite_grad */
    LAYER_CROSS_ENTROPY, /* cross_entropy, cross_entropy_grad, top_k */
    LAYER_KD_LOSS,       /* kd_loss, kd_loss_grad */
    LAYER_FEATURE_LOSS,  /* feature_loss, feature_loss_grad */
    LAYER_CLIP,          /* sum_squares, sum_squares added to another, clip_factor, count_not_finite */
    LAYER_LARS,          /* lars_rate */
    LAYER_SGD,           /* sgd_update */
    LAYER_EMA,           /* ema_update */
    LAYER_IMAGES,        /* images: of `o` images `n` with `c` channels; pad_channels, convert there and back */
    LAYER_LOSS_SCALE,    /* loss_scale */
    LAYER_METRIC         /* scale, metric_add, metric_watch */
} layer_kind;

enum {
    BIAS = 1,             /* conv2d, linear: with a bias and its gradient; batch norm: which it takes out */
    RELU = 2,             /* batch norm, upsample_bn, linear_bn */
    RESIDUAL = 4,         /* batch norm: a residual is added before the ReLU */
    KEPT_Y = 8,           /* batch norm: the backward is given y, and is asked for g */
    OHWI_WEIGHT = 16,     /* linear: the weight is a convolution's, read as a matrix */
    NO_TEACHER_GRAD = 32, /* kd_loss: the teacher's gradient is not wanted */
    NESTEROV = 64,        /* sgd */
    DECAY = 128,          /* sgd, lars */
    CLIPPED = 256,        /* sgd, lars: with a factor */
    SMOOTHED = 512,       /* cross entropy: label smoothing 0.1 */
    SCALED = 1024,        /* gradients of losses: times a loss scale */
    COPIED = 2048,        /* sgd: with a copy */
    WITH_EMA = 4096,      /* sgd: with an EMA */
    RATE_FIRST = 8192     /* sgd: the learning rate goes into the momentum */
};

/* One row. `n h w c` is the feature map that enters; `o` is channels out, or the channels of the second input. */
typedef struct {
    layer_kind kind;
    int32_t n, h, w, c, o;
    int32_t kernel, stride, pad, groups;
    int32_t terms; /* add: inputs; batch norm: gradients that flow into y */
    unsigned options;
} layer_case;

extern const layer_case layer_cases[];
extern const int layer_case_count;

enum { LAYER_MAX_OPS = 8 };

/* Writes the ops of a layer, with activations of the dtype `real`; returns how many. Parameters, their gradients and
 * the optimiser are float32 where `real` has 16 bits. Labels are static text. */
int layer_requests(const layer_case *row, dtype real, kernel_request requests[LAYER_MAX_OPS]);

/* The op's name and the input that output 0 may replace (-1: none), as ops.def has them. */
const char *op_case_name(unsigned op);
int op_case_in_place(unsigned op);

/* "conv2d n2 h5 w7 c3 o17 k3 s1 p1 g1 options 1" for messages. */
void layer_describe(const layer_case *row, const char *op, char *text, int size);

#endif

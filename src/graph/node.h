/* Descriptors of the step graph: what a value is, what a node does.
 *
 * Shared with the backends, which see descriptors only and never the graph. Plain data: a node
 * can be copied, hashed, dumped and compared. Nothing here holds memory.
 */
#ifndef TESKD_GRAPH_NODE_H
#define TESKD_GRAPH_NODE_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t value_id;
enum { VALUE_NONE = 0 }; /* also an absent optional input or an output nobody wants */
enum { NODE_MAX_IN = 10, NODE_MAX_OUT = 4, GRAPH_NAME_BYTES = 64 };

/* How dim[] reads, and the shape the tensor has in files.
 * NHWC: batch, height, width, channels (activations). OHWI: convolution weight, in files
 * O,I,H,W. OI: linear weight {O,1,1,I}, in files O,I. C: a vector {1,1,1,C}, in files C. */
typedef enum { LAYOUT_NHWC, LAYOUT_OHWI, LAYOUT_OI, LAYOUT_C } tensor_layout;

/* Where a value lives. Inputs are filled by the caller before each step. Parameters and states (momentum, running
 * statistics) outlive the program. Gradients lie in the order in which the backward completes them. Activations are
 * packed by lifetime. */
typedef enum { KIND_INPUT, KIND_PARAMETER, KIND_GRADIENT, KIND_STATE, KIND_ACTIVATION, KIND_COUNT } value_kind;

/* row_stride and patch differ from 0 only where graph/placement.h put a value into another. */
typedef struct {
    int32_t dim[4];
    uint8_t dtype;
    uint8_t layout;
    uint8_t kind;
    int32_t row_stride; /* elements from the channels of one position to the next; 0: dim[3] */
    int32_t patch;      /* positions lie by patches of this size, in a patch by lines; 0: all by lines */
} tensor_desc;

typedef enum {
#define OP(id, ...) id,
#include "graph/ops.def"
#undef OP
    OP_COUNT
} op_id;

/* Constants of a node; an op reads only the fields that its line in ops.def names. */
typedef struct {
    int32_t kernel, stride, pad, groups; /* convolutions and patches; groups >= 1 */
    int32_t channel_offset;              /* channel_slice: first channel taken; metric_add, metric_watch: (first) sum */
    int32_t channels;                    /* pad_channels, images: of the result */
    bool relu;                           /* batch normalisation: ReLU after it (and after the residual) */
    bool decay;                          /* sgd_update: weight decay applies to this parameter */
    bool nesterov;                       /* sgd_update */
    bool rate_first;                     /* sgd_update: the learning rate goes into the momentum, as LARS has it */
    bool detach_teacher;                 /* kd_loss: no gradient into the teacher (read by its gradient rule) */
    double count;         /* elements per channel in the (global) BN batch, or images in the global batch */
    double eps, momentum; /* BN epsilon; momentum of BN, of SGD, of an EMA */
    double weight;        /* factor of this loss in the joint loss; of scale and metric_add */
    double temperature;   /* knowledge distillation */
    double weight_decay;  /* sgd_update, lars_rate */
    double eta;           /* lars_rate: trust coefficient */
    double ema_decay;     /* sgd_update: decay of the EMA of the weights */
    double smoothing;     /* cross_entropy: label smoothing, 0 to 1 */
    double max_norm;      /* clip_factor; loss_scale (0: no clipping) */
} op_attr;

typedef struct {
    uint16_t op;
    uint8_t n_in, n_out;
    value_id in[NODE_MAX_IN];
    value_id out[NODE_MAX_OUT];
    op_attr attr;
    char label[GRAPH_NAME_BYTES]; /* the layer it belongs to */
} graph_node;

static inline int64_t tensor_count(const tensor_desc *t)
{
    return (int64_t)t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static inline size_t tensor_bytes(const tensor_desc *t)
{
    return (size_t)tensor_count(t) * dtype_bytes(t->dtype);
}

/* Elements from one row of the matrix to the next. */
static inline int64_t tensor_row_stride(const tensor_desc *t)
{
    return t->row_stride ? t->row_stride : t->dim[3];
}

/* Rows of the matrix a tensor is when its channels are the columns: N*H*W. */
static inline int64_t tensor_rows(const tensor_desc *t)
{
    return (int64_t)t->dim[0] * t->dim[1] * t->dim[2];
}

/* Where position (n*H + y)*W + x of a feature map lies among the rows in memory. */
static inline int64_t tensor_row(const tensor_desc *t, int64_t place)
{
    if (!t->patch)
        return place;
    int64_t size = t->patch, x = place % t->dim[2], line = place / t->dim[2];
    int64_t patch = line / size * (t->dim[2] / size) + x / size;
    return (patch * size + line % size) * size + x % size;
}

/* The state of op loss_scale: what each of its numbers is, and the bounds and the pace of the scale. So many skipped
 * steps in a row bring any scale down to the least, and a few more have not helped. */
#define LOSS_SCALE_STATE "loss_scale"
enum { SCALING_SCALE, SCALING_GOOD_STEPS, SCALING_SKIPPED, SCALING_SKIPPED_IN_ROW, SCALING_NUMBERS };
enum { SCALE_LEAST = 1, SCALE_MOST = 1 << 24, SCALE_GROWTH_STEPS = 2000, SCALE_SKIPS_MOST = 32 };

/* What passes and devices ask of an op; a row of ops.def names those it has. */
enum {
    TRAIT_PRODUCT = 1 << 0,           /* multiplies operands of the dtype of activations, on a GPU by a library */
    TRAIT_REAL = 1 << 1,              /* its results stay real where activations are of 16 bits */
    TRAIT_AS_GIVEN = 1 << 2,          /* its results are of the dtype of its input */
    TRAIT_LOSS = 1 << 3,              /* attr.weight says how much of the joint loss it is */
    TRAIT_LOSS_GRADIENT = 1 << 4,     /* begins the backward; takes a loss scale as its last input */
    TRAIT_MEASURE = 1 << 5,           /* counts on the results of a head */
    TRAIT_DEFERRED = 1 << 6,          /* nothing in the step waits for it */
    TRAIT_UPDATE = 1 << 7,            /* changes parameters */
    TRAIT_PATCHED_OUT = 1 << 8,       /* can write output 0 in patch order */
    TRAIT_PATCHED_GRADIENTS = 1 << 9, /* can read the gradients it takes, from input 5 on, in patch order */
};

static inline unsigned op_traits(unsigned op)
{
    static const uint16_t traits[OP_COUNT] = {
#define OP(id, name, min_in, max_in, max_out, in_place, shape, gradient, traits) traits,
#include "graph/ops.def"
#undef OP
    };
    return traits[op];
}

static inline bool op_has(unsigned op, unsigned traits)
{
    return (op_traits(op) & traits) != 0;
}

/* Losses, their gradients, and top_k: they read the results of the heads and are independent of one another. */
static inline bool op_is_loss(unsigned op)
{
    return op_has(op, TRAIT_LOSS | TRAIT_LOSS_GRADIENT | TRAIT_MEASURE);
}

/* Does a node of that op change the memory of its input `index`? */
static inline bool op_changes_input(unsigned op, int index)
{
    return (op == OP_SGD_UPDATE && (index < 2 || index == 5 || index == 6)) || (op == OP_LOSS_SCALE && index == 1) ||
           ((op == OP_SCALE || op == OP_ALL_REDUCE) && index == 0) ||
           ((op == OP_METRIC_ADD || op == OP_METRIC_WATCH || op == OP_EMA_UPDATE) && index == 1) ||
           (op == OP_BN_RUNNING && (index == 1 || index == 2));
}

const char *op_name(op_id op);
const char *dtype_name(uint8_t type);

#endif

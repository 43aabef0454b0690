/* The networks as tables, and the model a step is built from.
 *
 * A backbone (the teacher) of four stages, three students on top of them, the joint loss. Builders only: they add
 * nodes to a graph and know nothing of devices. Parameter names are those of the published PyTorch state_dict.
 */
#ifndef TESKD_MODEL_NETWORK_H
#define TESKD_MODEL_NETWORK_H

#include "base/image.h"
#include "graph/graph.h"

enum { STAGES = 4, STUDENTS = 3, HEADS = 1 + STUDENTS };

/* Order of the heads everywhere: the teacher, then the students from the deepest to the shallowest. */
extern const char *const head_names[HEADS];

/* How a backbone is put together; each is one file. */
typedef enum {
    FAMILY_RESNET,   /* residual.c: 3x3 stem, or 7x7 with a max-pool for large images */
    FAMILY_RESNEXT,  /* residual.c: doubled inner width, 32 groups in bottlenecks only */
    FAMILY_SERESNET, /* seresnet.c: squeeze-excite */
    FAMILY_VGG       /* vgg.c */
} network_family;

typedef enum { BLOCK_BASIC, BLOCK_BOTTLENECK } block_kind;

/* One row per network. Stage i of a residual family has width * 2^i channels before expansion and, but for the first,
 * halves the feature map. Stage i of a VGG has width * {2, 4, 8, 8} channels and ends in a max-pool. */
typedef struct {
    const char *name;
    network_family family;
    block_kind block;
    int32_t blocks[STAGES]; /* residual blocks, or convolutions, of each stage */
    int32_t width;          /* channels of the stem and base of the first stage */
    int32_t input;          /* side of the image it is made for; from 64 on the stem is the large one */
    int32_t patch;          /* kernel of student3's patch convolution; twice it for student2, four times for student1 */
} network_row;

/* The row of that name, or NULL. */
const network_row *network_find(const char *name);

/* Row `index` of the table, or NULL past its end. */
const network_row *network_at(int index);

typedef struct {
    const network_row *network;
    bool teskd; /* with students; otherwise, or with no student on, the plain backbone with cross entropy of weight 1 */
    int32_t classes;
    int32_t blocks[STAGES]; /* all 0: the network's own */
    int32_t width;          /* 0: the network's own */
    int32_t student_width;  /* 0: channels of the teacher's last stage (the published 512 x expansion) */
    int32_t image_height, image_width;
    int32_t padded_channels; /* channels that the first layer reads, those after the images' own zero; 0: none added.
                              * Parameters stay as they are. */
    double temperature, ce_weight, kd_weight, feature_weight, teacher_weight;
    double student_weights[STUDENTS]; /* student3, student2, student1 */
    bool students_on[STUDENTS];       /* the others are left out, with what only they need */
    double label_smoothing;
    bool kd_detach_teacher;
} model_options;

/* Is the head part of the network (the teacher always), and is there any student? */
bool model_has_head(const model_options *options, int head);
bool model_has_students(const model_options *options);

/* Does a tensor or layer of that name belong to a student (rather than the teacher, or anything unknown)? */
bool model_is_students(const char *name);

/* The head that a layer, tensor or loss of that name is for, as an index of head_names: of a student's path, the
 * deepest student; of anything unknown, the teacher, whose backbone feeds all. */
int model_head_of(const char *name);

/* Weight of a head's cross entropy in the joint loss. */
double model_cross_entropy_weight(const model_options *options, int head);

/* How images come into a step. Op images makes what the first layer reads of bytes. It takes the input "choice"
 * int32 {n,1,1,4} and the state "<set>/table" real {1,256,1,3}. */
typedef enum {
    INPUT_REAL,    /* the input "input" real {n,h,w,3} */
    INPUT_BYTES,   /* the input "pixels" {n,h,w,3}: bytes of the batch's images */
    INPUT_RESIDENT /* the state "<set>" {set_images,h,w,3}: bytes of all images */
} input_kind;

typedef struct {
    input_kind kind;
    const char *set; /* such as "data/train"; of images in bytes, as all below */
    int32_t set_images;
    int32_t crop_padding; /* attr.pad of op images */
} step_input;

/* What one step is built for. */
typedef struct {
    bool training;        /* batch statistics; otherwise running ones */
    bool sync_bn;         /* batch statistics over all ranks */
    int32_t batch;        /* images of this rank */
    int32_t global_batch; /* of all ranks */
    int32_t loss_batch;   /* what the losses are averaged over: more than global_batch where a step has several
                             micro-batches */
    micro_batch_place place;
    step_input input;
} step_shape;

/* How a parameter starts. Values are drawn per element, in the order of the file layout. */
typedef enum { INIT_CONSTANT, INIT_UNIFORM, INIT_NORMAL } init_kind;
typedef struct {
    value_id parameter;
    init_kind kind;
    double scale; /* the constant, the bound of the uniform or the deviation of the normal distribution */
} parameter_init;

/* Values of a built model; VALUE_NONE for heads that are not on. */
typedef struct {
    bool head_on[HEADS];     /* the teacher always */
    value_id input, target;  /* what the first layer reads {n,h,w,3 or padded_channels}, classes {n,1,1,1} int32 */
    value_id stages[STAGES]; /* the backbone's feature maps, shallow to deep */
    value_id logits[HEADS], features[HEADS];
    value_id cross_entropy[HEADS], top_k[HEADS];
    value_id kd[STUDENTS], feature[STUDENTS];
    parameter_init *inits; /* one per parameter; freed by model_free */
    uint32_t n_inits;
} model;

/* Adds the forward of one step with its losses to the graph. Problems are in graph_status. Values to be read after
 * the step are kept under "logits/HEAD", "features/HEAD", "cross_entropy/HEAD", "top_k/HEAD", "kd/HEAD",
 * "feature/HEAD". */
void model_build(model *m, graph *g, const model_options *options, const step_shape *shape);
void model_free(model *m);

#endif

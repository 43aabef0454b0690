/* Owns the order in which a model is put together. One thread. */
#include "base/error.h"
#include "model/layers.h"

#include <stdlib.h>
#include <string.h>

bool model_has_head(const model_options *options, int head)
{
    return head == 0 || (options->teskd && options->students_on[head - 1]);
}

bool model_has_students(const model_options *options)
{
    return model_has_head(options, 1) || model_has_head(options, 2) || model_has_head(options, 3);
}

/* How names of the students' layers begin, before a number: that of the student, or of its stage, which is one less. */
static const struct {
    const char *prefix;
    int student; /* plus the number */
} student_layers[] = {{"laterals.", 1}, {"upsample.", 1}, {"fuse_", 0}, {"downsample", 0}, {"fc_b", 0}};

/* The student's number of such a name; 0: it is no student's. The last stage's lateral begins the deepest one's path.
 */
static int student_of(const char *name)
{
    for (size_t i = 0; i < sizeof student_layers / sizeof student_layers[0]; i++) {
        const size_t length = strlen(student_layers[i].prefix);
        if (strncmp(name, student_layers[i].prefix, length) != 0)
            continue;
        const int number = name[length] - '0' + student_layers[i].student;
        return number < 1 ? 1 : number > STUDENTS ? STUDENTS : number;
    }
    return 0;
}

bool model_is_students(const char *name)
{
    return student_of(name) > 0;
}

int model_head_of(const char *name)
{
    const char *const loss = strncmp(name, "loss.", 5) == 0 ? name + 5 : "";
    for (int head = 0; head < HEADS; head++)
        if (strcmp(loss, head_names[head]) == 0)
            return head;
    const int student = student_of(name);
    return student ? 1 + STUDENTS - student : 0;
}

static init_policy backbone_init(network_family family, int32_t input)
{
    bool large_resnet = family == FAMILY_RESNET && input > 32;
    return (init_policy){.normal_convolutions = large_resnet || family == FAMILY_RESNEXT || family == FAMILY_VGG,
                         .zero_biases = family == FAMILY_VGG,
                         .normal_linears = family == FAMILY_VGG};
}

/* The published ResNet for large images initialises its students as PyTorch does; the other families treat them as
 * their backbone. */
static init_policy students_init(network_family family)
{
    return backbone_init(family, 0);
}

static void build_backbone(builder *b)
{
    switch (b->options->network->family) {
    case FAMILY_RESNET:
    case FAMILY_RESNEXT:
        build_residual(b);
        break;
    case FAMILY_SERESNET:
        build_seresnet(b);
        break;
    case FAMILY_VGG:
        build_vgg(b);
        break;
    }
}

static value_id state_of_set(builder *b, const char *suffix, uint8_t type, const int32_t dim[4])
{
    char name[2 * GRAPH_NAME_BYTES];
    tensor_desc desc = {.dtype = type, .layout = LAYOUT_NHWC, .kind = KIND_STATE};
    memcpy(desc.dim, dim, sizeof desc.dim);
    if (snprintf(name, sizeof name, "%s%s", b->shape->input.set, suffix) >= GRAPH_NAME_BYTES)
        graph_fail(b->g, ERROR_INTERNAL, "the name \"%s\" is too long", name);
    return graph_value_new(b->g, desc, name);
}

static value_id images_from_bytes(builder *b, int32_t channels)
{
    const step_input *input = &b->shape->input;
    bool resident = input->kind == INPUT_RESIDENT;
    const int32_t dim[4] = {resident ? input->set_images : b->shape->batch, b->options->image_height,
                            b->options->image_width, IMAGE_CHANNELS};
    value_id bytes = resident ? state_of_set(b, "", DTYPE_U8, dim) : graph_input(b->g, "pixels", DTYPE_U8, dim);
    value_id choice = graph_input(b->g, "choice", DTYPE_I32, (const int32_t[]){b->shape->batch, 1, 1, 4});
    value_id table = state_of_set(b, "/table", (uint8_t)b->g->real, (const int32_t[]){1, 256, 1, IMAGE_CHANNELS});
    op_attr attr = {.pad = input->crop_padding, .channels = channels};
    return graph_apply(b->g, OP_IMAGES, &attr, 3, (value_id[]){bytes, choice, table});
}

static value_id build_input(builder *b)
{
    int32_t padded = b->options->padded_channels, channels = padded ? padded : IMAGE_CHANNELS;
    graph_scope(b->g, "input");
    if (b->shape->input.kind != INPUT_REAL)
        return images_from_bytes(b, channels);
    value_id input = graph_input(
        b->g, "input", (uint8_t)b->g->real,
        (const int32_t[]){b->shape->batch, b->options->image_height, b->options->image_width, IMAGE_CHANNELS});
    op_attr attr = {.channels = channels};
    return padded ? graph_apply(b->g, OP_PAD_CHANNELS, &attr, 1, &input) : input;
}

void model_build(model *m, graph *g, const model_options *options, const step_shape *shape)
{
    const network_row *row = options->network;
    builder b = {g, m, options, shape, backbone_init(row->family, row->input)};
    memset(m, 0, sizeof *m);
    for (int head = 0; head < HEADS; head++)
        m->head_on[head] = model_has_head(options, head);
    m->input = build_input(&b);
    m->target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){shape->batch, 1, 1, 1});
    build_backbone(&b);
    b.init = students_init(row->family);
    if (model_has_students(options) && !g->status)
        build_students(&b);
    if (!g->status)
        build_losses(&b);
    graph_scope(g, "%s", "");
}

void model_free(model *m)
{
    free(m->inits);
    m->inits = NULL;
    m->n_inits = 0;
}

/* Owns the order in which a model is put together. One thread. */
#include "model/layers.h"

#include <stdlib.h>
#include <string.h>

bool model_has_students(const model_options *options)
{
    return options->teskd && (options->students_on[0] || options->students_on[1] || options->students_on[2]);
}

static init_policy backbone_init(network_family family, int32_t input)
{
    bool large_resnet = family == FAMILY_RESNET && input > 32;
    return (init_policy){.normal_convolutions = large_resnet || family == FAMILY_RESNEXT || family == FAMILY_VGG,
                         .zero_biases = family == FAMILY_VGG,
                         .normal_linears = family == FAMILY_VGG};
}

/* The published ResNet for large pictures initialises its students as PyTorch does; the other families treat them as
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

void model_build(model *m, graph *g, const model_options *options, const step_shape *shape)
{
    const network_row *row = options->network;
    builder b = {g, m, options, shape, backbone_init(row->family, row->input)};
    memset(m, 0, sizeof *m);
    m->head_on[0] = true;
    for (int student = 0; student < STUDENTS; student++)
        m->head_on[1 + student] = options->teskd && options->students_on[student];
    m->input = graph_input(g, "input", (uint8_t)g->real,
                           (const int32_t[]){shape->batch, options->image_height, options->image_width, 3});
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

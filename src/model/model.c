/* Owns the order in which a model is put together. One thread. */
#include "model/layers.h"

#include <stdlib.h>
#include <string.h>

void model_build(model *m, graph *g, const model_options *options, const step_shape *shape)
{
    builder b = {g, m, options, shape};
    memset(m, 0, sizeof *m);
    m->heads = options->teskd ? HEADS : 1;
    m->input = graph_input(g, "input", (uint8_t)g->real,
                           (const int32_t[]){shape->batch, options->image_height, options->image_width, 3});
    m->target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){shape->batch, 1, 1, 1});
    build_backbone(&b);
    if (options->teskd && !g->status)
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

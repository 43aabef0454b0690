/* Owns the search for the first value that is not finite. Invariant: once one is found nothing more is looked at, and
 * every launch is still made. Results are read by the host: any device, any dtype. One thread. */
#include "run/look.h"
#include "base/error.h"
#include "run/program_private.h"

#include <stdlib.h>

typedef struct {
    const runtime *r;
    const program *p;
    void *staged; /* room for the largest value */
    not_finite *found;
} search;

/* Numbers whose exponent, under the mask, is all ones: infinite ones, and what is no number. */
static int64_t count_16(const uint16_t *values, int64_t count, uint16_t exponent)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < count; i++)
        bad += (values[i] & exponent) == exponent;
    return bad;
}

static int64_t count_32(const uint32_t *values, int64_t count, uint32_t exponent)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < count; i++)
        bad += (values[i] & exponent) == exponent;
    return bad;
}

static int64_t count_64(const uint64_t *values, int64_t count, uint64_t exponent)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < count; i++)
        bad += (values[i] & exponent) == exponent;
    return bad;
}

static int64_t count_bad(const void *values, uint8_t type, int64_t begin, int64_t count)
{
    switch (type) {
    case DTYPE_F64:
        return count_64((const uint64_t *)values + begin, count, UINT64_C(0x7FF) << 52);
    case DTYPE_F32:
        return count_32((const uint32_t *)values + begin, count, UINT32_C(0xFF) << 23);
    case DTYPE_F16:
        return count_16((const uint16_t *)values + begin, count, 0x7C00);
    default:
        return count_16((const uint16_t *)values + begin, count, 0x7F80);
    }
}

static bool is_real(uint8_t type)
{
    return type == DTYPE_F64 || type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

/* Rows of an image lie together, and a part of a whole has a stride between them. */
static int64_t count_image(const tensor_desc *desc, const void *values, int32_t image)
{
    const int64_t rows = tensor_rows(desc) / desc->dim[0], stride = tensor_row_stride(desc);
    int64_t bad = 0;
    for (int64_t row = image * rows; row < (image + 1) * rows; row++)
        bad += count_bad(values, desc->dtype, row * stride, desc->dim[3]);
    return bad;
}

static not_finite count_all(const tensor_desc *desc, const void *values)
{
    not_finite n = {.values = tensor_count(desc)};
    int64_t worst = 0;
    if (desc->kind == KIND_ACTIVATION && desc->layout == LAYOUT_NHWC && desc->dim[0] > 1)
        n.images = desc->dim[0];
    for (int32_t image = 0; image < desc->dim[0]; image++) {
        const int64_t bad = count_image(desc, values, image);
        n.bad += bad;
        n.bad_images += bad > 0;
        if (bad > worst) {
            worst = bad;
            n.worst_image = image;
        }
    }
    return n;
}

/* From the first to the last of its elements. */
static size_t extent(const tensor_desc *desc)
{
    return (size_t)((tensor_rows(desc) - 1) * tensor_row_stride(desc) + desc->dim[3]) * dtype_bytes(desc->dtype);
}

static int look_at(const search *s, uint32_t index, value_id id)
{
    const tensor_desc *desc = graph_desc(&s->p->step, id);
    backend *device = s->r->options.device;
    if (id == VALUE_NONE || s->found->node || !is_real(desc->dtype))
        return 0;
    TRY(device->ops->read(device, s->staged, program_memory(s->r, s->p, id), extent(desc)));
    const not_finite n = count_all(desc, s->staged);
    if (n.bad == 0)
        return 0;
    *s->found = n;
    s->found->node = &s->p->step.nodes[index];
    s->found->index = index;
    return 0;
}

static int look_at_changes(const search *s, uint32_t index)
{
    const graph_node *node = &s->p->step.nodes[index];
    for (int k = 0; k < node->n_in; k++)
        if (op_changes_input(node->op, k))
            TRY(look_at(s, index, node->in[k]));
    return 0;
}

/* The node that wrote a gradient; NULL: it is no node of this program. */
static const graph_node *writer_of(const graph *g, value_id id)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] == id)
                return &g->nodes[i];
    return NULL;
}

/* Each gradient was finite when it was written: it was looked at then. */
static int look_at_summed(const search *s, uint32_t index)
{
    const graph *g = &s->p->step;
    const graph_node *node = &g->nodes[index];
    for (int k = 0; k < node->n_in && s->r->options.ranks > 1 && !s->found->node; k++) {
        if (graph_desc(g, node->in[k])->kind != KIND_GRADIENT)
            continue;
        TRY(look_at(s, index, node->in[k]));
        if (s->found->node) {
            s->found->node = writer_of(g, node->in[k]);
            s->found->summed = true;
        }
    }
    return 0;
}

static int look_at_node(const search *s, uint32_t index)
{
    const graph_node *node = &s->p->step.nodes[index];
    TRY(look_at_summed(s, index));
    for (int k = 0; k < node->n_out; k++)
        TRY(look_at(s, index, node->out[k]));
    return look_at_changes(s, index);
}

/* Of a chain of sums in one launch only the last is written. */
static int look_at_launch(void *context, const program_launch *launch)
{
    const search *s = context;
    const bool chain = s->p->step.nodes[launch->first_node].op == OP_SUM_SQUARES;
    for (uint32_t i = 0; i < launch->n_nodes; i++)
        if (!chain || i + 1 == launch->n_nodes)
            TRY(look_at_node(s, launch->first_node + i));
        else
            TRY(look_at_summed(s, launch->first_node + i));
    return 0;
}

static int search_open(search *s, const runtime *r, const program *p, not_finite *found)
{
    size_t bytes = 1;
    for (value_id id = 1; id < p->step.n_values; id++) {
        const tensor_desc *desc = graph_desc(&p->step, id);
        if (is_real(desc->dtype) && extent(desc) > bytes)
            bytes = extent(desc);
    }
    *found = (not_finite){.node = NULL};
    *s = (search){.r = r, .p = p, .staged = malloc(bytes), .found = found};
    CHECK(s->staged, ERROR_MEMORY, "no memory to look at a value of %zu bytes", bytes);
    return 0;
}

int program_look(runtime *r, program *p, not_finite *found)
{
    search s;
    TRY(search_open(&s, r, p, found));
    int status = program_run_looking(r, p, &(launch_look){look_at_launch, &s});
    free(s.staged);
    return status;
}

int program_look_at_updates(const runtime *r, const program *p, not_finite *found)
{
    search s;
    TRY(search_open(&s, r, p, found));
    int status = runtime_synchronize(r);
    for (uint32_t i = 0; i < p->step.n_nodes && status == 0; i++)
        if (op_has(p->step.nodes[i].op, TRAIT_UPDATE))
            status = look_at_changes(&s, i);
    free(s.staged);
    return status;
}

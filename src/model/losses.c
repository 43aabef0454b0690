/* Owns the joint loss: cross entropy of every head, knowledge distillation and feature loss of every student.
 *     total = ce_weight * (teacher_weight*CE_t + sum w_i*CE_i) + kd_weight * sum KD_i + feature_weight * sum FEA_i
 * defined on the global batch, so that any number of ranks gives the same gradient. One thread. */
#include "model/layers.h"

static void keep(builder *b, value_id value, const char *what, int head)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s/%s", what, head_names[head]);
    graph_keep(b->g, value, name);
}

double model_cross_entropy_weight(const model_options *o, int head)
{
    if (!model_has_students(o))
        return 1;
    return o->ce_weight * (head == 0 ? o->teacher_weight : o->student_weights[head - 1]);
}

static void build_head_losses(builder *b, int head)
{
    model *m = b->m;
    op_attr attr = {.count = b->shape->loss_batch,
                    .weight = model_cross_entropy_weight(b->options, head),
                    .smoothing = b->shape->training ? b->options->label_smoothing : 0};
    value_id in[2] = {m->logits[head], m->target};
    graph_scope(b->g, "loss.%s", head_names[head]);
    m->cross_entropy[head] = graph_apply(b->g, OP_CROSS_ENTROPY, &attr, 2, in);
    m->top_k[head] = graph_apply(b->g, OP_TOP_K, NULL, 2, in);
    keep(b, m->logits[head], "logits", head);
    keep(b, m->features[head], "features", head);
    keep(b, m->cross_entropy[head], "cross_entropy", head);
    keep(b, m->top_k[head], "top_k", head);
}

static void build_distillation(builder *b, int head)
{
    model *m = b->m;
    const model_options *o = b->options;
    int student = head - 1;
    op_attr attr = {.count = b->shape->loss_batch,
                    .weight = o->kd_weight,
                    .temperature = o->temperature,
                    .detach_teacher = o->kd_detach_teacher};
    graph_scope(b->g, "loss.%s", head_names[head]);
    m->kd[student] = graph_apply(b->g, OP_KD_LOSS, &attr, 2, (value_id[]){m->logits[head], m->logits[0]});
    keep(b, m->kd[student], "kd", head);

    attr.weight = o->feature_weight;
    m->feature[student] = graph_apply(b->g, OP_FEATURE_LOSS, &attr, 2, (value_id[]){m->features[head], m->features[0]});
    keep(b, m->feature[student], "feature", head);
}

void build_losses(builder *b)
{
    for (int head = 0; head < HEADS; head++)
        if (b->m->head_on[head])
            build_head_losses(b, head);
    for (int head = 1; head < HEADS; head++)
        if (b->m->head_on[head])
            build_distillation(b, head);
}

/* Owns the measurements of steps. One thread. */
#include "train/metrics.h"

/* A kept float64 scalar, or element of one; 0 when the program has none. */
static double scalar(const program *p, const runtime *r, const char *what, int head, int index)
{
    char name[GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%s/%s", what, head_names[head]);
    const double *value = program_value(p, r, name, NULL);
    return value ? value[index] : 0;
}

static double joint(const metrics *step, const model_options *o, int32_t global_images)
{
    if (!model_has_students(o))
        return step->cross_entropy[0];
    double total = o->ce_weight * o->teacher_weight * step->cross_entropy[0];
    for (int i = 0; i < STUDENTS; i++)
        total += o->ce_weight * o->student_weights[i] * step->cross_entropy[1 + i] + o->kd_weight * step->kd[i] +
                 o->feature_weight * global_images * step->feature[i];
    return total;
}

void metrics_add_step(metrics *m, const program *p, const runtime *r, const model_options *options, int32_t images,
                      int32_t global_images)
{
    metrics step = {.images = images};
    for (int head = 0; head < HEADS; head++) {
        step.cross_entropy[head] = global_images * scalar(p, r, "cross_entropy", head, 0);
        step.top1[head] = scalar(p, r, "top_k", head, 0);
        step.top5[head] = scalar(p, r, "top_k", head, 1);
    }
    for (int i = 0; i < STUDENTS; i++) {
        step.kd[i] = global_images * scalar(p, r, "kd", 1 + i, 0);
        step.feature[i] = scalar(p, r, "feature", 1 + i, 0);
    }
    step.total = joint(&step, options, global_images);
    metrics_add(m, &step);
}

void metrics_add(metrics *a, const metrics *b)
{
    double *to = (double *)a;
    const double *from = (const double *)b;
    for (int i = 0; i < METRICS_COUNT; i++)
        to[i] += from[i];
}

void metrics_scale(metrics *m, double factor)
{
    double *value = (double *)m;
    for (int i = 0; i < METRICS_COUNT; i++)
        value[i] *= factor;
}

int metrics_reduce(metrics *m, comm *ranks)
{
    return comm_all_reduce(ranks, m, METRICS_COUNT, COMM_F64);
}

metrics metrics_mean(const metrics *m)
{
    metrics mean = *m;
    double *value = (double *)&mean;
    for (int i = 0; i < METRICS_COUNT; i++)
        value[i] = m->images > 0 ? value[i] / m->images : 0;
    mean.images = m->images;
    return mean;
}

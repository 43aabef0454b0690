/* Owns the measurements of steps. One thread. */
#include "train/metrics.h"
#include "base/error.h"

#include <string.h>

static int find_sums(const store *tensors, const store_entry **entry)
{
    *entry = store_find(tensors, LOSS_SUMS_STATE);
    CHECK(*entry, ERROR_INTERNAL, "the store has no sums of losses");
    return 0;
}

static int read_sums(loss_sums *sums, const store *tensors)
{
    const store_entry *entry;
    TRY(find_sums(tensors, &entry));
    return tensors->device->ops->read(tensors->device, sums, entry->memory, sizeof *sums);
}

int metrics_read(metrics *m, const store *tensors, double images)
{
    loss_sums sums;
    TRY(read_sums(&sums, tensors));
    *m = (metrics){.images = images, .total = sums.total};
    memcpy(m->cross_entropy, sums.cross_entropy, sizeof m->cross_entropy);
    memcpy(m->kd, sums.kd, sizeof m->kd);
    memcpy(m->feature, sums.feature, sizeof m->feature);
    for (int head = 0; head < HEADS; head++) {
        m->top1[head] = sums.right[head][0];
        m->top5[head] = sums.right[head][1];
    }
    return 0;
}

int metrics_read_bad(metrics_bad *bad, const store *tensors)
{
    loss_sums sums;
    TRY(read_sums(&sums, tensors));
    *bad = (metrics_bad){.bad_runs = (int64_t)sums.bad_runs, .bad_gradients = (int64_t)sums.bad_gradients};
    return 0;
}

int metrics_reset(const store *tensors)
{
    const store_entry *entry;
    TRY(find_sums(tensors, &entry));
    return tensors->device->ops->zero(tensors->device, entry->memory, sizeof(loss_sums));
}

int loss_scaling_read(loss_scaling *s, const store *tensors)
{
    float state[SCALING_NUMBERS];
    const store_entry *entry = store_find(tensors, LOSS_SCALE_STATE);
    *s = (loss_scaling){.on = entry != NULL};
    if (!entry)
        return 0;
    TRY(tensors->device->ops->read(tensors->device, state, entry->memory, sizeof state));
    s->scale = (double)state[SCALING_SCALE];
    s->skipped = (int64_t)state[SCALING_SKIPPED];
    s->in_row = (int64_t)state[SCALING_SKIPPED_IN_ROW];
    return 0;
}

void metrics_add(metrics *a, const metrics *b)
{
    double *to = (double *)a;
    const double *from = (const double *)b;
    for (int i = 0; i < METRICS_COUNT; i++)
        to[i] += from[i];
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

/* Owns what is said of a plan's batch, and the changes that are tried on it. One thread. */
#include "base/error.h"
#include "tools/plan/private.h"

#include <stdio.h>
#include <stdlib.h>

/* Images of an epoch from which on a data set is of ImageNet's kind. */
static const int64_t imagenet_kind = 1000000;

/* The runs are listed, with their sources, in docs/scaling.md. */
const char *plan_recipe(int64_t batch)
{
    if (batch <= 1024)
        return "SGD as for a small batch, lr scaled with it (train.lr_batch)";
    if (batch <= 8192)
        return "SGD, lr scaled with the batch (train.lr_batch), a warm-up of 5 epochs (train.warmup_epochs)";
    if (batch <= 32768)
        return "LARS, a warm-up of 5 epochs, no decay on norm and bias (train.decay_norm_and_bias), label smoothing";
    if (batch <= 81920)
        return "LARS with all of that; published runs lost half a point to one between 64k and 80k";
    return "none: no published run of ResNet-50 has kept its accuracy at such a batch";
}

static void print_recipe(const planned *p, logger *log)
{
    const int64_t batch = p->rows[p->n_rows - 1].batch;
    const double steps = (double)p->step.train_images / (double)batch;
    log_info(log, "batch %lld, %.0f steps per epoch", (long long)batch, steps);
    if (p->step.train_images >= imagenet_kind)
        log_info(log, "  recipe: %s (of plain networks; none is known with students)", plan_recipe(batch));
    else
        log_info(log, "  recipe: large batches are published for ImageNet; here, compare a short run with the "
                      "settings' batch first");
    if (batch != p->config->train.batch)
        log_info(log, "  the settings are for %lld", (long long)p->config->train.batch);
}

/* ---- what would help ---- */

/* One thing changed. */
typedef struct {
    char text[96];
    double efficiency;
} change;

static int try_change(const planned *p, const settings *c, const plan_options *o, const plan_request *wanted,
                      change *out)
{
    planned other = *p;
    other.config = c;
    other.options = o;
    other.request = *wanted;
    other.cluster.net = 1e9 / 8 * o->net_gbits * (double)o->adapters;
    TRY(plan_make_step(&other.step, c, o, wanted));
    out->efficiency = plan_row_of(&other, o->nodes).efficiency;
    plan_step_free(&other.step);
    return 0;
}

static int try_16_bits(const planned *p, change *out)
{
    plan_request wanted = p->request;
    wanted.halved = true;
    snprintf(out->text, sizeof out->text, "run.reduce_16bit = yes");
    return try_change(p, p->config, p->options, &wanted, out);
}

static int try_net(const planned *p, change *out)
{
    plan_options o = *p->options;
    o.net_gbits *= 2;
    snprintf(out->text, sizeof out->text, "adapters of %g Gb/s", o.net_gbits);
    return try_change(p, p->config, &o, &p->request, out);
}

static int try_buckets(const planned *p, double factor, change *out)
{
    plan_request wanted = p->request;
    wanted.buckets.most = (size_t)((double)wanted.buckets.most * factor);
    snprintf(out->text, sizeof out->text, "run.bucket_mib = %g", (double)wanted.buckets.most / 0x1p20);
    return try_change(p, p->config, p->options, &wanted, out);
}

/* Twice the images, in twice the time where it was given. */
static int try_images(const planned *p, change *out)
{
    plan_options o = *p->options;
    plan_request wanted = p->request;
    wanted.gpu_batch *= 2;
    o.step_ms *= 2;
    snprintf(out->text, sizeof out->text, "%d images per GPU", wanted.gpu_batch);
    return try_change(p, p->config, &o, &wanted, out);
}

static int by_efficiency(const void *a, const void *b)
{
    const change *x = a, *y = b;
    return (x->efficiency < y->efficiency) - (x->efficiency > y->efficiency);
}

int plan_print_advice(const planned *p, logger *log)
{
    change changes[5];
    int count = 0;
    const double now = p->rows[p->n_rows - 1].efficiency;
    print_recipe(p, log);
    if (!p->request.halved)
        TRY(try_16_bits(p, &changes[count++]));
    if (p->options->nodes > 1)
        TRY(try_net(p, &changes[count++]));
    TRY(try_buckets(p, 0.5, &changes[count++]));
    TRY(try_buckets(p, 2, &changes[count++]));
    TRY(try_images(p, &changes[count++]));
    qsort(changes, (size_t)count, sizeof *changes, by_efficiency);
    log_info(log, "what one change makes of the efficiency of %.1f%%:", 100 * now);
    for (int i = 0; i < count; i++)
        log_info(log, "  %-28s %6.1f%% (%+.1f)", changes[i].text, 100 * changes[i].efficiency,
                 100 * (changes[i].efficiency - now));
    return 0;
}

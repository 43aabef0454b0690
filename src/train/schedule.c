/* Owns the learning-rate schedules. Pure functions; any thread. */
#include "train/schedule.h"

#include <math.h>

static double step_factor(const settings *config, long long epoch)
{
    double factor = 1;
    for (int i = 0; i < config->train.milestones.count; i++)
        if (epoch >= config->train.milestones.value[i])
            factor *= config->train.gamma;
    return factor;
}

double schedule_lr(const settings *config, long long epoch, long long step, long long steps)
{
    double scale = config->train.lr_batch ? (double)config->train.batch / (double)config->train.lr_batch : 1;
    double lr = scale * config->train.lr, floor_lr = scale * config->train.min_lr, warmup = config->train.warmup_epochs;
    double now = (double)epoch + (double)step / (double)steps;
    if (now < warmup) /* the first step already moves: it has the rate that the warm-up reaches after it */
        return lr * (now + 1 / (double)steps) / (warmup + 1 / (double)steps);
    double span = (double)config->train.epochs - warmup;
    double progress = span > 0 ? (now - warmup) / span : 1;
    switch (config->train.schedule) {
    case SCHEDULE_STEP:
        return lr * step_factor(config, epoch);
    case SCHEDULE_COSINE:
        return floor_lr + (lr - floor_lr) * 0.5 * (1 + cos(M_PI * progress));
    case SCHEDULE_LINEAR:
        return floor_lr + (lr - floor_lr) * (1 - progress);
    default:
        return lr;
    }
}

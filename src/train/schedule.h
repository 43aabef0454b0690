/* The learning rate as a function of where training stands. */
#ifndef TESKD_TRAIN_SCHEDULE_H
#define TESKD_TRAIN_SCHEDULE_H

#include "base/settings.h"

/* Learning rate of step `step` (from 0) of `steps` in epoch `epoch` (from 0). The step schedule changes between epochs
 * only, as the published code does. Cosine and linear fall with every step, from the end of the warm-up to min_lr at
 * the end of the last epoch. During the warm-up it rises linearly to train.lr. */
double schedule_lr(const settings *config, long long epoch, long long step, long long steps);

#endif

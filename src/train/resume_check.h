/* What a resume may change of a training's settings, and what it says of the changes. */
#ifndef TESKD_TRAIN_RESUME_CHECK_H
#define TESKD_TRAIN_RESUME_CHECK_H

#include "base/log.h"
#include "base/settings.h"

/* Compares the settings of a resume with those of its checkpoint at `path`, `within` an epoch or at the start of one;
 * model.classes is resolved in both. ERROR_SETTINGS, with the setting and both values, where the network is another
 * one, or the rest of the epoch would not be the rest of that epoch. */
int resume_check(const settings *now, const settings *saved, const char *path, bool within);

/* Says the other settings that differ and change what is computed. */
void resume_say_changes(const settings *now, const settings *saved, logger *log);

#endif

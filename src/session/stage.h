/* Copies the data set to a disk of each host before a run reads it (data.stage). */
#ifndef TESKD_SESSION_STAGE_H
#define TESKD_SESSION_STAGE_H

#include "base/log.h"
#include "base/settings.h"
#include "dist/comm.h"

/* For a source in shards. Makes `path` where the data are to be read: a folder in data.stage, to which one rank of each
 * host has copied what is not there yet; or data.path, with a warning, where there is no room or the copy failed. Every
 * rank calls it. */
int stage_data(const settings *config, comm *ranks, logger *log, char path[SETTING_TEXT_BYTES]);

#endif

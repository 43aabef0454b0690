/* Earlier checkpoints that stay in output.dir: step_N.h5, N the steps done. "Newest" goes by the time at which a file
 * was written, since a run that goes on from an earlier checkpoint counts its steps from there. Rank 0's; one thread at
 * a time for each folder. */
#ifndef TESKD_TRAIN_KEPT_CHECKPOINTS_H
#define TESKD_TRAIN_KEPT_CHECKPOINTS_H

#include "base/settings.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { KEPT_NAME_BYTES = 32, KEPT_PATH_BYTES = SETTING_TEXT_BYTES + KEPT_NAME_BYTES };

typedef struct {
    char name[KEPT_NAME_BYTES];
    struct timespec written;
} kept_file;

typedef struct {
    kept_file *files; /* the newest first */
    int count;
} kept_list;

/* Which of them stay: the newest `count`, and those of the last `hours`. */
typedef struct {
    int64_t count;
    double hours;
} kept_rule;

void kept_path(char path[KEPT_PATH_BYTES], const char *folder, int64_t steps_done);

/* Is this such a name? */
bool kept_is_name(const char *name);

/* Makes `path` a second name of a checkpoint, in place of what is there. False where that cannot be, as on a file
 * system without hard links. */
bool kept_link(const char *path, const char *checkpoint);

/* Removes those that the rule does not let stay. ERROR_FILE names the one that cannot be removed. */
int kept_thin(const char *folder, const kept_rule *rule);

/* Lists the regular files of such a name; none where there is no folder. The caller frees the list. */
int kept_list_read(kept_list *list, const char *folder);
void kept_list_free(kept_list *list);

#endif

/* Owns the list of what a resume may change. One thread. */
#include "train/resume_check.h"
#include "base/error.h"
#include "model/network.h"

#include <string.h>

/* The whole of a section, or one setting, by the beginning of its name. */
static bool is_among(const char *name, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Two ways of saying the same become one. */
static void resolve(settings *s)
{
    const network_row *row = network_find(s->model.network);
    if (!row)
        return;
    if (s->model.width == 0)
        s->model.width = row->width;
    if (s->model.blocks.count == 1) {
        s->model.blocks.count = STAGES;
        for (int i = 0; i < STAGES; i++)
            s->model.blocks.value[i] = row->blocks[i];
    }
    if (s->model.method == METHOD_PLAIN) {
        s->model.students = (setting_ints){0};
        s->model.student_width = 0;
    }
}

int resume_check(const settings *now, const settings *saved, const char *path, bool within)
{
    static const char *const network[] = {"model.", NULL};
    static const char *const order[] = {"train.seed",        "train.batch",    "data.kind",
                                        "data.train_images", "data.drop_last", NULL};
    settings a = *now, b = *saved;
    setting_difference d;
    resolve(&a);
    resolve(&b);
    for (int i = settings_difference(&a, &b, 0, &d); i >= 0; i = settings_difference(&a, &b, i + 1, &d)) {
        CHECK(!is_among(d.name, network), ERROR_SETTINGS, "%s: %s, but %s is a checkpoint of a network with %s", d.name,
              d.a, path, d.b);
        CHECK(!within || !is_among(d.name, order), ERROR_SETTINGS,
              "%s: %s, but the checkpoint is in the middle of an epoch with %s", d.name, d.a, d.b);
    }
    return 0;
}

void resume_say_changes(const settings *now, const settings *saved, logger *log)
{
    static const char *const quiet[] = {"model.",      "data.path",      "output.",     "log.", "train.max_steps",
                                        "run.threads", "run.plan_cache", "run.capture", NULL};
    setting_difference d;
    for (int i = settings_difference(now, saved, 0, &d); i >= 0; i = settings_difference(now, saved, i + 1, &d))
        if (!is_among(d.name, quiet))
            log_info(log, "  %s is now %s, in the checkpoint %s%s", d.name, d.a, d.b,
                     strcmp(d.name, "train.ema_decay") == 0 && saved->train.ema_decay == 0
                         ? ": the average starts from the checkpoint's weights"
                         : "");
}

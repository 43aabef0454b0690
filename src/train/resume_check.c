/* Owns the list of what a resume may change. One thread. */
#include "train/resume_check.h"
#include "base/error.h"
#include "model/network.h"

#include <stdlib.h>
#include <string.h>

/* The whole of a section, or one setting, by the beginning of its name. */
static bool is_among(const char *name, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static int larger_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
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
    if (s->model.method == METHOD_PLAIN)
        s->model.students = (setting_ints){0};
    if (s->data.order != ORDER_BLOCK)
        s->data.block_images = s->data.window_blocks = 0;
    qsort(s->model.students.value, (size_t)s->model.students.count, sizeof s->model.students.value[0], larger_first);
}

/* A width that follows from the network is compared by the shapes of its tensors. */
static void leave_student_width(settings *a, settings *b)
{
    bool follows = a->model.student_width == 0 || b->model.student_width == 0;
    if (follows || (a->model.method == METHOD_PLAIN && b->model.method == METHOD_PLAIN))
        a->model.student_width = b->model.student_width = 0;
}

int resume_check(const settings *now, const settings *saved, const char *path, bool within)
{
    static const char *const network[] = {"model.", NULL};
    static const char *const order[] = {"train.seed",      "train.batch", "data.kind",         "data.train_images",
                                        "data.drop_last",  "data.order",  "data.block_images", "data.window_blocks",
                                        "data.image_size", NULL};
    settings a = *now, b = *saved;
    setting_difference d;
    resolve(&a);
    resolve(&b);
    leave_student_width(&a, &b);
    for (int i = settings_difference(&a, &b, 0, &d); i >= 0; i = settings_difference(&a, &b, i + 1, &d)) {
        CHECK(!is_among(d.name, network), ERROR_SETTINGS, "%s: %s, but %s is a checkpoint of a network with %s", d.name,
              d.a, path, d.b);
        CHECK(
            strcmp(d.name, "train.optimizer") != 0, ERROR_SETTINGS,
            "%s: %s, but the momentum in %s is that of %s, another quantity (export and import begin with the weights "
            "alone)",
            d.name, d.a, path, d.b);
        CHECK(!within || !is_among(d.name, order), ERROR_SETTINGS,
              "%s: %s, but the checkpoint is of an epoch with %s that is not finished", d.name, d.a, d.b);
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

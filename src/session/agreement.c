/* Owns the comparison of ranks with rank 0. One thread. */
#include "session/agreement.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

/* May be another one on each host. Of output.dir, rank 0's counts. */
static bool is_local(const char *name)
{
    return strcmp(name, "data.path") == 0 || strcmp(name, "output.dir") == 0 || strcmp(name, "run.plan_cache") == 0 ||
           strcmp(name, "run.threads") == 0;
}

static int compare_settings(const settings *mine, const settings *first)
{
    setting_difference d;
    for (int i = settings_difference(mine, first, 0, &d); i >= 0; i = settings_difference(mine, first, i + 1, &d))
        CHECK(is_local(d.name), ERROR_SETTINGS, "%s: %s, but rank 0 has %s; all ranks need the same settings", d.name,
              d.a, d.b);
    return 0;
}

int agree_on_text(comm *ranks, const char *what, const char *text)
{
    char mine[TEXT_BYTES] = "", first[TEXT_BYTES];
    if (comm_describe(ranks)->size == 1)
        return 0;
    snprintf(mine, sizeof mine, "%s", text);
    memcpy(first, mine, TEXT_BYTES);
    TRY(comm_broadcast(ranks, first, TEXT_BYTES, 0));
    return comm_agree(ranks, strcmp(mine, first) == 0
                                 ? 0
                                 : error_set(ERROR_SETTINGS, "%s: \"%s\", but rank 0 has \"%s\"", what, mine, first));
}

int agree_on_settings(comm *ranks, const settings *config)
{
    settings first = *config;
    if (comm_describe(ranks)->size == 1)
        return 0;
    TRY(comm_broadcast(ranks, &first, sizeof first, 0));
    return comm_agree(ranks, compare_settings(config, &first));
}

static int agree_on_set(comm *ranks, const char *name, const image_set *set)
{
    char text[IMAGE_SET_IDENTITY_BYTES] = "";
    if (set->images > 0)
        image_set_identity(set, text);
    return agree_on_text(ranks, name, text);
}

int agree_on_data(comm *ranks, const image_set *train_set, const image_set *test_set)
{
    if (comm_describe(ranks)->size == 1)
        return 0; /* a checksum of all images takes a while */
    TRY(agree_on_set(ranks, "training set", train_set));
    return agree_on_set(ranks, "test set", test_set);
}

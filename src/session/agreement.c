/* Owns the comparison of ranks with rank 0. One thread. */
#include "session/agreement.h"
#include "base/build_id.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

/* May be another one on each host. Of output.dir, rank 0's counts. */
static bool is_local(const char *name)
{
    return strcmp(name, "data.path") == 0 || strcmp(name, "output.dir") == 0 || strcmp(name, "run.plan_cache") == 0 ||
           strcmp(name, "run.threads") == 0;
}

/* Which program a rank runs, and where. */
typedef struct {
    char text[PROGRAM_TEXT_BYTES], host[64];
} program_of_rank;

/* The hosts of all ranks whose program is not rank 0's, each once: neighbours in rank share one. */
static void list_hosts(const program_of_rank *all, int ranks, char *text, size_t bytes)
{
    const char *last = "";
    text[0] = '\0';
    for (int rank = 0; rank < ranks; rank++) {
        if (strcmp(all[rank].text, all[0].text) == 0 || strcmp(all[rank].host, last) == 0)
            continue;
        const size_t used = strlen(text);
        snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", all[rank].host);
        last = all[rank].host;
    }
}

static int compare_programs(const program_of_rank *mine, const program_of_rank *all, int ranks)
{
    char hosts[512];
    list_hosts(all, ranks, hosts, sizeof hosts);
    CHECK(strcmp(mine->text, all[0].text) == 0, ERROR_USAGE,
          "this is teskd %s, but rank 0 runs teskd %s; another program than rank 0's is on %s: copy one build to all "
          "hosts, "
          "since two builds may round differently",
          mine->text, all[0].text, hosts);
    return 0;
}

int agree_on_program(comm *ranks)
{
    const comm_info *info = comm_describe(ranks);
    if (info->size == 1)
        return 0;
    program_of_rank mine = {0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the programs of %d ranks", info->size);
    program_text(mine.text);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    int status = comm_all_gather(ranks, &mine, sizeof mine, all);
    if (status == 0)
        status = comm_agree(ranks, compare_programs(&mine, all, info->size));
    free(all);
    return status;
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

/* Finds out whether ranks share a GPU. No state. Main thread. */
#include "nccl_reduction.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Machines may have the same name, and containers on one machine different ones: NCCL, too, takes the name and the
 * kernel's boot id together for the host. */
typedef struct {
    char host[256], boot[64], gpu[64];
} gpu_place;

static void read_boot_id(char *text, int bytes)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file)
        return;
    if (!fgets(text, bytes, file))
        text[0] = '\0';
    fclose(file);
}

static bool same_host(const gpu_place *a, const gpu_place *b)
{
    return memcmp(a->host, b->host, sizeof a->host) == 0 && memcmp(a->boot, b->boot, sizeof a->boot) == 0;
}

/* On the host of places[first]. */
static void count_on_host(const gpu_place *places, int n, int first, gpu_sharing *found)
{
    *found = (gpu_sharing){0};
    snprintf(found->host, sizeof found->host, "%s", places[first].host);
    for (int i = 0; i < n; i++) {
        bool is_new = true;
        if (!same_host(&places[i], &places[first]))
            continue;
        for (int k = 0; k < i; k++)
            is_new = is_new && memcmp(&places[k], &places[i], sizeof *places) != 0;
        found->ranks++;
        found->gpus += is_new;
    }
}

static void find_host(const gpu_place *places, int n, gpu_sharing *found)
{
    for (int i = 0; i < n; i++) {
        count_on_host(places, n, i, found);
        if (found->gpus < found->ranks)
            return;
    }
    found->ranks = 0;
}

int nccl_find_sharing(comm *ranks, const char *gpu_id, gpu_sharing *found)
{
    const comm_info *info = comm_describe(ranks);
    gpu_place mine = {0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the places of %d GPUs", info->size);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    snprintf(mine.gpu, sizeof mine.gpu, "%s", gpu_id);
    read_boot_id(mine.boot, sizeof mine.boot);
    int status = comm_all_gather(ranks, &mine, sizeof mine, all);
    if (status == 0)
        find_host(all, info->size, found);
    free(all);
    return status;
}

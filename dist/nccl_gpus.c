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

static bool any_equal(const gpu_place *places, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (memcmp(&places[i], &places[j], sizeof *places) == 0)
                return true;
    return false;
}

int nccl_gpus_are_distinct(comm *ranks, const char *gpu_id, bool *distinct)
{
    const comm_info *info = comm_describe(ranks);
    gpu_place mine = {0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the places of %d GPUs", info->size);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    snprintf(mine.gpu, sizeof mine.gpu, "%s", gpu_id);
    read_boot_id(mine.boot, sizeof mine.boot);
    int status = comm_all_gather(ranks, &mine, sizeof mine, all);
    if (status == 0)
        *distinct = !any_equal(all, info->size);
    free(all);
    return status;
}

/* Owns the choice of device and threads. One thread. */
#include "train/device.h"
#include "base/error.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int device_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Where a rank may run. */
typedef struct {
    char host[64];
    cpu_set_t cores;
} placement;

int device_threads(const settings *config, comm *ranks, int *threads)
{
    const comm_info *info = comm_describe(ranks);
    placement mine = {0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the placement of %d ranks", info->size);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    sched_getaffinity(0, sizeof mine.cores, &mine.cores);
    int status = comm_all_gather(ranks, &mine, sizeof mine, all), sharers = 0;
    for (int rank = 0; rank < info->size; rank++)
        sharers += memcmp(&all[rank], &mine, sizeof mine) == 0;
    int share = device_cores() / (sharers > 0 ? sharers : 1);
    *threads = config->run.threads > 0 ? (int)config->run.threads : share > 1 ? share : 1;
    free(all);
    return status;
}

static cpu_isa chosen_isa(const settings *config)
{
    static const cpu_isa isas[] = {[ISA_AUTO] = CPU_ISA_AUTO,
                                   [ISA_BASELINE] = CPU_ISA_BASELINE,
                                   [ISA_AVX2] = CPU_ISA_AVX2,
                                   [ISA_AVX512] = CPU_ISA_AVX512};
    return isas[config->run.isa];
}

int device_open(backend **out, const settings *config, int threads)
{
    if (config->run.device == DEVICE_REFERENCE)
        return backend_reference_open(out, threads);
    return backend_cpu_open(out, threads, chosen_isa(config));
}

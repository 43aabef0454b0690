/* Owns the checks of GPUs beside the program's own use of them. No state. */
#include "base/error.h"
#include "tools/preflight/check.h"
#include "tools/preflight/nvml.h"

#include <stdio.h>
#include <string.h>

static void append(char *text, size_t bytes, const char *more)
{
    const size_t used = strlen(text);
    snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", more);
}

static bool is_alike(const nvml_gpu *a, const nvml_gpu *b)
{
    return strcmp(a->name, b->name) == 0 && a->gib == b->gib && a->highest_clock == b->highest_clock &&
           a->has_ecc == b->has_ecc;
}

/* "8 x NVIDIA H100 80GB HBM3 (79.6 GiB, up to 1980 MHz, ECC), driver 570.86", neighbours that are alike together. */
int check_gpus(const preflight *p, finding *mine)
{
    nvml_gpu gpus[NVML_MOST_GPUS];
    char about[NVML_NAME_BYTES], text[NVML_NAME_BYTES + 96];
    if (!preflight_leads(p))
        return 0;
    const int count = nvml_read(gpus, about);
    TRY(count);
    mine->verdict = VERDICT_FINE;
    for (int i = 0, same; i < count; i += same) {
        for (same = 1; i + same < count && is_alike(&gpus[i], &gpus[i + same]);)
            same++;
        snprintf(text, sizeof text, "%d x %s (%.1f GiB, up to %u MHz%s)", same, gpus[i].name, gpus[i].gib,
                 gpus[i].highest_clock, gpus[i].has_ecc ? ", ECC" : "");
        append(mine->text, sizeof mine->text, text);
    }
    append(mine->text, sizeof mine->text, about);
    return 0;
}

static void find_problem(const nvml_gpu *gpu, int index, finding *mine)
{
    char text[96];
    const char *why = gpu->is_hot ? "slowed down by heat" : gpu->is_slowed ? "slowed down by the hardware" : NULL;
    if (why) {
        snprintf(text, sizeof text, "GPU %d is %s", index, why);
        append(mine->problem, sizeof mine->problem, text);
    }
    if (gpu->memory_errors > 0) {
        snprintf(text, sizeof text, "GPU %d has %llu uncorrected memory errors", index, gpu->memory_errors);
        append(mine->problem, sizeof mine->problem, text);
    }
    if (mine->problem[0])
        mine->verdict = VERDICT_FAULT;
}

static void add_gpu(const nvml_gpu *gpu, finding *mine)
{
    char text[96];
    snprintf(text, sizeof text, "%u MHz (memory %u) %u C%s", gpu->clock, gpu->memory_clock, gpu->temperature,
             gpu->is_capped ? " at its power limit" : "");
    append(mine->text, sizeof mine->text, text);
}

/* Right after the matrix product, so that the clocks are still those of work. */
int check_gpu_state(const preflight *p, finding *mine)
{
    nvml_gpu gpus[NVML_MOST_GPUS];
    char about[NVML_NAME_BYTES];
    const int count = preflight_leads(p) ? nvml_read(gpus, about) : 0;
    if (count <= 0)
        return 0; /* check_gpus tells */
    mine->verdict = VERDICT_FINE;
    for (int i = 0; i < count; i++) {
        add_gpu(&gpus[i], mine);
        find_problem(&gpus[i], i, mine);
    }
    return 0;
}

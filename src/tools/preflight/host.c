/* Owns the checks of programs, libraries, device and cores. No state. */
#include "base/build_id.h"
#include "base/error.h"
#include "session/launch.h"
#include "tools/bench.h"
#include "tools/preflight/check.h"

#include <gnu/libc-version.h>
#include <limits.h>
#include <link.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int check_program(const preflight *p, finding *mine)
{
    char text[PROGRAM_TEXT_BYTES];
    if (!preflight_leads(p))
        return 0;
    program_text(text);
    mine->verdict = VERDICT_FINE;
    snprintf(mine->text, sizeof mine->text, "%s", text);
    return 0;
}

/* The files behind the names tell the versions: libhdf5_serial.so.103 is libhdf5_serial.so.103.3.0 on one host. */
static int add_library(struct dl_phdr_info *library, size_t size, void *text)
{
    static const char *const told[] = {"libmpi.so", "libhdf5", "libdnnl.so", "libjpeg.so", "libpng", "libgomp.so"};
    char path[PATH_MAX];
    (void)size;
    if (!library->dlpi_name[0] || !realpath(library->dlpi_name, path))
        return 0;
    const char *name = strrchr(path, '/') + 1;
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        const size_t used = strlen(text);
        if (strncmp(name, told[i], strlen(told[i])) == 0)
            snprintf((char *)text + used, FINDING_TEXT_BYTES - used, ", %s", name);
    }
    return 0;
}

int check_libraries(const preflight *p, finding *mine)
{
    if (!preflight_leads(p))
        return 0;
    mine->verdict = VERDICT_FINE;
    snprintf(mine->text, sizeof mine->text, "glibc %s", gnu_get_libc_version());
    dl_iterate_phdr(add_library, mine->text);
    return 0;
}

int check_device(const preflight *p, finding *mine)
{
    if (p->has_device) {
        mine->verdict = VERDICT_FINE;
        snprintf(mine->text, sizeof mine->text, "%s", p->e.device->ops->description(p->e.device));
    } else if (p->device_problem[0]) {
        mine->verdict = VERDICT_FAULT;
        snprintf(mine->problem, sizeof mine->problem, "%s", p->device_problem);
    }
    return 0;
}

int check_cores(const preflight *p, finding *mine)
{
    launch_means means;
    char problem[LAUNCH_TEXT_BYTES];
    if (!p->has_device)
        return 0;
    TRY(launch_find(&p->e, &means));
    mine->verdict = launch_starves(&means, problem) ? VERDICT_FAULT : VERDICT_FINE;
    snprintf(mine->problem, sizeof mine->problem, "%s", problem);
    int used = snprintf(mine->text, sizeof mine->text, "per rank: cores %d, hardware threads %d, loader threads %d",
                        means.cores, means.hardware_threads, means.loader_threads);
    if (means.computes_on_cores)
        snprintf(mine->text + used, sizeof mine->text - (size_t)used, ", computing threads %d", means.threads);
    return 0;
}

/* On cores all ranks of a host compute at once, and the first tells. */
int check_compute(const preflight *p, finding *mine)
{
    enum { HOST_SIDE = 1024, DEVICE_SIDE = 8192 };
    double flops;
    if (!p->has_device)
        return 0;
    const bool on_cores = p->e.device->ops->host_memory;
    TRY(bench_matmul(p->e.device, on_cores ? HOST_SIDE : DEVICE_SIDE, &flops));
    if (on_cores && !preflight_leads(p))
        return 0;
    mine->verdict = VERDICT_FINE;
    mine->value = 1e-9 * flops;
    snprintf(mine->text, sizeof mine->text, "%.4g GFLOP/s in a matrix product", mine->value);
    return 0;
}

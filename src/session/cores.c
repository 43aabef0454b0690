/* Owns what hwloc is asked. One thread. */
#include "session/cores.h"

#include <ctype.h>
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <hwloc/linux.h>
#include <limits.h>
#include <stdio.h>

static int count_in(hwloc_topology_t machine, hwloc_const_cpuset_t threads)
{
    int count = 0;
    for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_CORE, core));)
        count += hwloc_bitmap_intersects(core->cpuset, threads);
    return count;
}

int cores_count(const cpu_set_t *threads)
{
    hwloc_topology_t machine;
    int count = 0;
    if (hwloc_topology_init(&machine) < 0)
        return CPU_COUNT(threads);
    /* Linux tells all that is asked; asking the processors too would move this thread over all of them. */
    hwloc_topology_set_components(machine, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    if (set && hwloc_topology_load(machine) == 0 &&
        hwloc_cpuset_from_glibc_sched_affinity(machine, set, threads, sizeof *threads) == 0)
        count = count_in(machine, set);
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(machine);
    return count > 0 ? count : CPU_COUNT(threads);
}

bool cores_near(const char *pci_address, const char *root, cpu_set_t *near)
{
    char path[PATH_MAX];
    int used = snprintf(path, sizeof path, "%s/sys/bus/pci/devices/", root);
    for (const char *c = pci_address; *c && used < (int)sizeof path - 16; c++)
        path[used++] = (char)tolower((unsigned char)*c); /* CUDA writes capitals, Linux does not */
    snprintf(path + used, sizeof path - (size_t)used, "/local_cpus");
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    const bool told = set && hwloc_linux_read_path_as_cpumask(path, set) == 0 && !hwloc_bitmap_iszero(set) &&
                      hwloc_cpuset_to_glibc_sched_affinity(NULL, set, near, sizeof *near) == 0;
    hwloc_bitmap_free(set);
    return told;
}

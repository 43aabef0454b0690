/* The share of processor time that control groups (containers, batch systems, systemd) grant this process. */
#ifndef TESKD_BASE_CPU_QUOTA_H
#define TESKD_BASE_CPU_QUOTA_H

#include <stdint.h>

enum { CPU_QUOTA_PATH_BYTES = 512 };

typedef struct {
    double cores;                    /* so many at a time, on average; 0: no limit */
    uint64_t group;                  /* the group that has the limit: the same for all processes that share it */
    char file[CPU_QUOTA_PATH_BYTES]; /* where it is written */
} cpu_quota;

/* The tightest limit of this process's groups and all above them that can be seen, of both versions of control groups
 * (cpu.max; cpu.cfs_quota_us). What cannot be read sets no limit. `root` is where /proc and /sys are: "" but in tests.
 */
void cpu_quota_find(cpu_quota *quota, const char *root);

#endif

/* Processes that the kernel has ended for want of memory. */
#ifndef TESKD_BASE_MEMORY_KILLS_H
#define TESKD_BASE_MEMORY_KILLS_H

#include <stdint.h>

/* A number that grows whenever the kernel ends a process for want of memory, in this process's control group, in one
 * above it or anywhere on this host. 0 where nothing counts them. `root` is where /proc and /sys are: "" but in tests.
 */
uint64_t memory_kills_count(const char *root);

#endif

/* The control groups (containers, batch systems, systemd) that a process is in. */
#ifndef TESKD_BASE_CONTROL_GROUPS_H
#define TESKD_BASE_CONTROL_GROUPS_H

#include <stdbool.h>

/* Calls `visit` with the folder of this process's group of the controller ("cpu", "memory") and of each group above it
 * that can be seen, in both versions of control groups. `root` is where /proc and /sys are: "" but in tests. */
void control_groups_visit(const char *root, const char *controller,
                          void (*visit)(void *context, const char *folder, bool second_version), void *context);

#endif

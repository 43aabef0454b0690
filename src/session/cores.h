/* The cores behind hardware threads, and the hardware threads near a device. */
#ifndef TESKD_SESSION_CORES_H
#define TESKD_SESSION_CORES_H

#include <sched.h>
#include <stdbool.h>

/* How many cores have one of these hardware threads; as many as there are threads where hwloc cannot tell. */
int cores_count(const cpu_set_t *threads);

/* The hardware threads on the side of the machine where the device with this PCI address ("0000:65:00.0") is attached.
 * false where the system does not say. `root` is where /sys is: "" but in tests. */
bool cores_near(const char *pci_address, const char *root, cpu_set_t *near);

#endif

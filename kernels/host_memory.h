/* Copies of devices whose memory is the host's: entries of their tables. */
#ifndef TESKD_KERNELS_HOST_MEMORY_H
#define TESKD_KERNELS_HOST_MEMORY_H

#include "kernels/backend.h"

int host_memory_write(backend *self, void *device, const void *host, size_t bytes);
int host_memory_read(backend *self, void *host, const void *device, size_t bytes);
int host_memory_copy(backend *self, void *to, const void *from, size_t bytes);
int host_memory_zero(backend *self, void *device, size_t bytes);
int host_memory_synchronize(backend *self);

#endif

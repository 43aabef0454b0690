/* Owns nothing: a copy is a copy, and whatever was launched is done. Any thread. */
#include "kernels/host_memory.h"

#include <string.h>

int host_memory_write(backend *self, void *device, const void *host, size_t bytes)
{
    return host_memory_copy(self, device, host, bytes);
}

int host_memory_read(backend *self, void *host, const void *device, size_t bytes)
{
    return host_memory_copy(self, host, device, bytes);
}

int host_memory_copy(backend *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    memcpy(to, from, bytes);
    return 0;
}

int host_memory_zero(backend *self, void *device, size_t bytes)
{
    (void)self;
    memset(device, 0, bytes);
    return 0;
}

int host_memory_synchronize(backend *self)
{
    (void)self;
    return 0;
}

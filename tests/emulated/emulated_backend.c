/* Owns a CUDA backend on the emulated device: its own table and kernels, products and convolutions in plain C.
 * One thread. */
#include "emulated_backend.h"

#include "base/error.h"
#include "kernels/host_memory.h"
#include "plain_device.h"

#include <stdio.h>
#include <stdlib.h>

static void close_backend(backend *self)
{
    cuda_backend *device = (cuda_backend *)self;
    free(device->convolutions);
    free(device->products);
    free((void *)(uintptr_t)self->ops);
    free(self);
}

int emulated_backend_open(cuda_backend **out, dtype real, int multiprocessors)
{
    cuda_backend *self = calloc(1, sizeof *self);
    backend_ops *ops = malloc(sizeof *ops); /* `real` differs from one backend to the next */
    cuda_convolutions *convolutions = calloc(1, sizeof *convolutions);
    cuda_products *products = calloc(1, sizeof *products);
    if (!self || !ops || !convolutions || !products) {
        free(self);
        free(ops);
        free(convolutions);
        free(products);
        return error_set(ERROR_MEMORY, "no memory for the emulated backend");
    }
    *ops = (backend_ops){.name = "emulated",
                         .real = DTYPE_F32,
                         .activation = real,
                         .host_memory = true,
                         .prepare = cuda_kernel_prepare,
                         .launch = cuda_kernel_launch,
                         .release = cuda_kernel_release,
                         .alloc = cuda_memory_alloc,
                         .free = cuda_memory_free,
                         .write = host_memory_write,
                         .read = host_memory_read,
                         .copy = host_memory_copy,
                         .zero = host_memory_zero,
                         .synchronize = host_memory_synchronize,
                         .description = cuda_describe,
                         .close = close_backend};
    convolutions->bias = true;
    products->extras = true;
    snprintf(self->description, sizeof self->description, "the CUDA backend on an emulated device, %s",
             dtype_name(real));
    self->base.ops = ops;
    self->real = real;
    self->deterministic = true;
    self->multiprocessors = multiprocessors;
    self->convolutions = convolutions;
    self->products = products;
    *out = self;
    return 0;
}

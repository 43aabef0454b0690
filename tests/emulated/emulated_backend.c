/* Owns what the CUDA backend has of libraries on the emulated device: products and convolutions in plain C. All else is
 * the backend's own. One thread. */
#include "emulated_backend.h"

#include "base/error.h"
#include "kernels/cuda/device/cuda_open.h"
#include "plain_device.h"

#include <stdio.h>
#include <stdlib.h>

int plain_submit(void *stream, void (*work)(const void *args), const void *args, size_t bytes)
{
    return cuda_check(emulated_submit(stream, work, args, bytes), "a library's kernel");
}

/* NVIDIA's libraries, of which only NCCL is used, by a fake one: linked to programs that add up between GPUs. */
__attribute__((weak)) int cuda_libraries_open(struct cuda_libraries **out);
__attribute__((weak)) void cuda_libraries_close(struct cuda_libraries *libraries);

static int open_fakes(cuda_backend *self)
{
    return cuda_libraries_open && getenv("TESKD_CUDA_LIBRARIES") ? cuda_libraries_open(&self->libraries) : 0;
}

int cuda_libraries_attach(cuda_backend *self, bool tune, const char *cache)
{
    (void)tune, (void)cache;
    self->products = malloc(sizeof *self->products);
    self->convolutions = malloc(sizeof *self->convolutions);
    if (!self->products || !self->convolutions) {
        cuda_libraries_detach(self);
        return error_set(ERROR_MEMORY, "no memory for the emulated libraries");
    }
    *self->products = (cuda_products){.extras = true, .stream = self->stream};
    *self->convolutions = (cuda_convolutions){.bias = true, .sums = CUDA_SUMS_FUSED, .stream = self->stream};
    return open_fakes(self);
}

void cuda_libraries_detach(cuda_backend *self)
{
    if (self->libraries)
        cuda_libraries_close(self->libraries);
    self->libraries = NULL;
    free(self->products);
    free(self->convolutions);
    self->products = NULL;
    self->convolutions = NULL;
}

void cuda_libraries_text(const cuda_backend *self, char *text, size_t bytes)
{
    (void)self;
    snprintf(text, bytes, "plain C");
}

int emulated_backend_open(cuda_backend **out, dtype real, int multiprocessors)
{
    static const cuda_precision precisions[] = {
        [DTYPE_F32] = CUDA_FP32, [DTYPE_F16] = CUDA_FP16, [DTYPE_BF16] = CUDA_BF16};
    emulated_machine machine = emulated_get_machine();
    machine.multiprocessors = multiprocessors;
    emulated_set_machine(&machine);
    backend *opened = NULL;
    TRY(backend_cuda_open(&opened, &(cuda_options){.precision = precisions[real], .deterministic = true}));
    *out = (cuda_backend *)opened;
    return 0;
}

/* Owns the libraries of an open backend. One thread. */
#include "base/error.h"
#include "kernels/cuda/library/cublaslt_products.h"
#include "kernels/cuda/library/cudnn_convolutions.h"
#include "kernels/cuda/library/libraries.h"
#include "kernels/cuda/lower/cuda_backend.h"

#include <stdio.h>

/* What the choices on disk hold for: cuDNN and cuBLASLt choose by more, which is the same for one model. */
static int name_model(const cuda_backend *self, char *model, size_t bytes)
{
    struct cudaDeviceProp properties;
    TRY(cuda_check(cudaGetDeviceProperties(&properties, self->device), "properties of the GPU"));
    snprintf(model, bytes, "sm%d%d-%.63s-%d", properties.major, properties.minor, properties.name,
             properties.multiProcessorCount);
    return 0;
}

static int open_parts(cuda_backend *self, bool tune, const char *cache)
{
    char model[128];
    if (!cache)
        cache = "";
    TRY(name_model(self, model, sizeof model));
    TRY(cuda_libraries_open(&self->libraries));
    TRY(cuda_products_open(&self->products, self->libraries,
                           &(cuda_products_options){.stream = self->stream,
                                                    .timer = &self->timer,
                                                    .tf32 = self->tf32,
                                                    .tune = tune && !self->deterministic,
                                                    .cache = cache,
                                                    .model = model}));
    return cuda_convolutions_open(&self->convolutions, self->libraries,
                                  &(cuda_convolutions_options){.stream = self->stream,
                                                               .timer = &self->timer,
                                                               .tf32 = self->tf32,
                                                               .deterministic = self->deterministic,
                                                               .tune = tune,
                                                               .cache = cache,
                                                               .model = model});
}

int cuda_libraries_attach(cuda_backend *self, bool tune, const char *cache)
{
    int code = open_parts(self, tune, cache);
    if (code < 0)
        cuda_libraries_detach(self);
    return code;
}

void cuda_libraries_detach(cuda_backend *self)
{
    cuda_convolutions_close(self->convolutions);
    cuda_products_close(self->products);
    cuda_libraries_close(self->libraries);
    self->convolutions = NULL;
    self->products = NULL;
    self->libraries = NULL;
}

void cuda_libraries_text(const cuda_backend *self, char *text, size_t bytes)
{
    char cudnn[32], cublaslt[32];
    cuda_library_version(self->libraries, CUDA_CUDNN, cudnn);
    cuda_library_version(self->libraries, CUDA_CUBLASLT, cublaslt);
    const char *problem = cuda_convolutions_cache_problem(self->convolutions);
    snprintf(text, bytes, "cuDNN %s, cuBLASLt %s%s%s", cudnn, cublaslt,
             *problem ? ", the choice of plans is not kept: " : "", problem);
}

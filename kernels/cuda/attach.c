/* Owns the libraries of an open backend. One thread. */
#include "base/error.h"
#include "convolution.h"
#include "cuda_backend.h"
#include "libraries.h"
#include "matrix_product.h"
#include "plan_cache.h"

#include <stdio.h>

static int open_convolutions(cuda_backend *self, bool tune, const char *cache)
{
    char folder[1024];
    if (!cache || !*cache)
        cache = plan_cache_default_folder(folder, sizeof folder) == 0 ? folder : NULL;
    return cuda_convolutions_open(&self->convolutions, self->libraries,
                                  &(cuda_convolutions_options){.stream = self->stream,
                                                               .tf32 = self->tf32,
                                                               .deterministic = self->deterministic,
                                                               .tune = tune,
                                                               .cache = cache});
}

static int open_parts(cuda_backend *self, bool tune, const char *cache)
{
    TRY(cuda_libraries_open(&self->libraries));
    TRY(cuda_products_open(&self->products, self->libraries, self->stream, self->tf32));
    return open_convolutions(self, tune, cache);
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
    snprintf(text, bytes, "cuDNN %s, cuBLASLt %s", cudnn, cublaslt);
}

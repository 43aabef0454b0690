/* Owns the handle of the OpenBLAS library. OpenBLAS reads its environment when it loads and keeps it, so it is not
 * linked. This file puts the right kernels into the environment, loads it, and puts the environment back. One thread at
 * a time opens or closes. */
#include "blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const char blas_library[] = "libopenblas.so.0";
static const char coretype_variable[] = "OPENBLAS_CORETYPE";

/* Old releases do not know newer processors and fall back to their slowest kernels; NULL leaves it to them. */
static const char *preferred_coretype(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return "SKYLAKEX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "HASWELL";
#endif
    return NULL;
}

static int load_library(void **library)
{
    const char *coretype = getenv(coretype_variable) ? NULL : preferred_coretype();
    if (coretype && setenv(coretype_variable, coretype, 1) != 0)
        return error_set(ERROR_MEMORY, "no memory for an environment variable");
    *library = dlopen(blas_library, RTLD_NOW | RTLD_LOCAL);
    const char *reason = *library ? "" : dlerror();
    if (coretype)
        unsetenv(coretype_variable);
    CHECK(*library, ERROR_KERNEL, "the reference backend needs %s (Debian package libopenblas0): %s", blas_library,
          reason);
    return 0;
}

/* ISO C has no cast from an object pointer to a function pointer; POSIX promises that the bits are the same. */
static int find_function(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    CHECK(symbol, ERROR_KERNEL, "%s has no function %s", blas_library, name);
    memcpy(function, &symbol, sizeof symbol);
    return 0;
}

static int find_functions(blas *self, int threads)
{
    void (*set_num_threads)(int) = NULL;
    char *(*get_corename)(void) = NULL;
    char *(*get_config)(void) = NULL;
    TRY(find_function(self->library, "cblas_dgemm", &self->dgemm));
    TRY(find_function(self->library, "openblas_set_num_threads", &set_num_threads));
    TRY(find_function(self->library, "openblas_get_corename", &get_corename));
    TRY(find_function(self->library, "openblas_get_config", &get_config));
    set_num_threads(threads);

    char product[32] = "OpenBLAS", version[32] = "of unknown version";
    sscanf(get_config(), "%31s %31s", product, version);
    snprintf(self->description, sizeof self->description, "%s %s, %s kernels, %d thread%s", product, version,
             get_corename(), threads, threads == 1 ? "" : "s");
    return 0;
}

int blas_open(blas *self, int threads)
{
    *self = (blas){0};
    TRY(load_library(&self->library));
    int status = find_functions(self, threads);
    if (status < 0)
        blas_close(self);
    return status;
}

void blas_close(blas *self)
{
    if (self->library)
        dlclose(self->library);
    self->library = NULL;
}

void blas_multiply(const blas *self, int m, int n, int k, blas_matrix a, blas_matrix b, double beta, double *c,
                   int stride)
{
    enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
    self->dgemm(ROW_MAJOR, a.transposed ? TRANSPOSE : NO_TRANSPOSE, b.transposed ? TRANSPOSE : NO_TRANSPOSE, m, n, k,
                1.0, a.value, a.stride, b.value, b.stride, beta, c, stride);
}

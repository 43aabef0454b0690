/* Owns the choice of a GPU and the backend's life on it. Invariant: a backend that opens has run a kernel. One thread.
 */
#include "base/error.h"
#include "cuda_devices.h"
#include "cuda_open.h"
#include "kernels/cuda/lower/cuda_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    dtype real;
    int oldest; /* compute capability, major * 10 + minor */
} precisions[] = {
    [CUDA_FP16] = {"fp16", DTYPE_F16, 75},
    [CUDA_BF16] = {"bf16", DTYPE_BF16, 80},
    [CUDA_TF32] = {"tf32", DTYPE_F32, 80},
    [CUDA_FP32] = {"fp32", DTYPE_F32, 75},
};

enum { OLDEST_CAPABILITY = 75 };

typedef struct {
    char name[128];
    int capability;
    double gib; /* of memory */
} gpu_model;

static int get_attribute(const cuda_backend *self, enum cudaDeviceAttr which, int *value)
{
    return cuda_check(cudaDeviceGetAttribute(value, which, self->device), "properties of the GPU");
}

static int get_model(cuda_backend *self, gpu_model *model)
{
    struct cudaDeviceProp properties;
    TRY(cuda_check(cudaGetDeviceProperties(&properties, self->device), "properties of the GPU"));
    snprintf(model->name, sizeof model->name, "%.127s", properties.name);
    model->capability = properties.major * 10 + properties.minor;
    model->gib = (double)properties.totalGlobalMem / 0x1p30;
    self->multiprocessors = properties.multiProcessorCount;
    return cuda_check(cudaDeviceGetPCIBusId(self->gpu_id, sizeof self->gpu_id, self->device), "PCI bus id of the GPU");
}

static int check_model(const cuda_backend *self, const gpu_model *model, cuda_precision precision)
{
    int mode = cudaComputeModeDefault, major = model->capability / 10, minor = model->capability % 10;
    CHECK(model->capability >= OLDEST_CAPABILITY, ERROR_KERNEL,
          "%s has compute capability %d.%d; 7.5 (Turing) or newer is needed", model->name, major, minor);
    CHECK(model->capability >= precisions[precision].oldest, ERROR_SETTINGS,
          "run.precision: %s has compute capability %d.%d, and %s needs 8.0 (Ampere); fp16 and fp32 are allowed",
          model->name, major, minor, precisions[precision].name);
    TRY(get_attribute(self, cudaDevAttrComputeMode, &mode));
    CHECK(mode != cudaComputeModeProhibited, ERROR_KERNEL,
          "%s is in compute mode \"prohibited\" (nvidia-smi -c DEFAULT changes it)", model->name);
    return 0;
}

/* The first thing that needs the GPU itself, and so the place where most of what can be wrong with it shows. */
static int make_context(const cuda_backend *self, const gpu_model *model)
{
    cudaError_t status = cudaSetDevice(self->device);
    if (status == cudaSuccess)
        status = cudaFree(NULL);
    if (status == cudaSuccess)
        return 0;
    cudaGetLastError();
    const char *hint = "";
    if (status == cudaErrorDevicesUnavailable)
        hint = ": another process has it for itself (compute mode \"exclusive\"), or it does not answer";
    else if (status == cudaErrorMemoryAllocation)
        hint = ": other processes have taken its memory";
    else if (status == cudaErrorECCUncorrectable || status == cudaErrorNvlinkUncorrectable)
        hint = ": it is broken, or must be reset";
    return error_set(ERROR_KERNEL, "%s: %s%s", model->name, cudaGetErrorString(status), hint);
}

/* Whether this build's kernels run on this GPU. */
static int run_kernel(cuda_backend *self, const gpu_model *model)
{
    enum { COUNT = 64 };
    float *memory = cuda_memory_alloc(&self->base, 2 * COUNT * sizeof *memory);
    if (!memory)
        return error_prefix(ERROR_KERNEL, "%s", model->name);
    int code = cuda_memory_zero(&self->base, memory, 2 * COUNT * sizeof *memory);
    if (code == 0)
        code = cuda_convert(self, memory, DTYPE_F16, COUNT, memory + COUNT);
    if (code == 0)
        code = cuda_synchronize(&self->base);
    cuda_memory_free(&self->base, memory);
    return code < 0 ? error_prefix(code, "a first kernel on %s", model->name) : 0;
}

static void describe(cuda_backend *self, const gpu_model *model, cuda_precision precision)
{
    char libraries[320], versions[64];
    cuda_libraries_text(self, libraries, sizeof libraries);
    cuda_versions(versions, sizeof versions);
    snprintf(self->description, sizeof self->description, "cuda: %s (sm_%d, %.0f GiB), %s%s, %s, %s", model->name,
             model->capability, model->gib, precisions[precision].name, self->deterministic ? ", deterministic" : "",
             libraries, versions);
}

static int open_on(cuda_backend *self, const cuda_options *options)
{
    gpu_model model;
    TRY(get_model(self, &model));
    TRY(check_model(self, &model, options->precision));
    TRY(make_context(self, &model));
    TRY(cuda_streams_open(self));
    TRY(run_kernel(self, &model));
    TRY(cuda_libraries_attach(self, options->tune, options->plan_cache));
    describe(self, &model, options->precision);
    return 0;
}

static void close_backend(backend *base)
{
    cuda_backend *self = (cuda_backend *)base;
    cuda_libraries_detach(self);
    cuda_streams_close(self);
    free(self);
}

int backend_cuda_open(backend **out, const cuda_options *options)
{
    int count = cuda_device_count();
    if (count <= 0)
        return error_prefix(ERROR_KERNEL, "no GPU can be used");
    cuda_backend *self = calloc(1, sizeof *self);
    CHECK(self, ERROR_MEMORY, "no memory for the CUDA backend");
    self->device = options->local_rank % count;
    self->real = precisions[options->precision].real;
    self->tf32 = options->precision == CUDA_TF32;
    self->deterministic = options->deterministic;
    self->table = cuda_table(self);
    self->table.close = close_backend;
    self->base.ops = &self->table;
    int code = open_on(self, options);
    if (code < 0) {
        int device = self->device;
        close_backend(&self->base);
        if (options->local_rank >= count)
            return error_prefix(code, "GPU %d, which ranks have to share, as this host has more of them than GPUs (%d)",
                                device, count);
        return error_prefix(code, "GPU %d", device);
    }
    *out = &self->base;
    return 0;
}

const struct cuda_libraries *cuda_backend_libraries(const backend *device)
{
    return ((const cuda_backend *)device)->libraries;
}

struct CUstream_st *cuda_backend_stream(const backend *device)
{
    return ((const cuda_backend *)device)->stream;
}

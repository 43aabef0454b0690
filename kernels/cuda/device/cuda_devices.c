/* Owns the questions about GPUs that need no kernel. The CUDA runtime is linked statically and finds the driver by
 * itself, so that one binary runs with and without one. Any thread. */
#include "cuda_devices.h"
#include "base/error.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

static void version_text(int version, char text[16])
{
    snprintf(text, 16, "%d.%d", version / 1000, version % 1000 / 10);
}

/* 0 where there is no driver. */
static int driver_version(void)
{
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

static int explain_driver(void)
{
    int runtime = 0, driver = driver_version();
    char driver_text[16], runtime_text[16];
    if (driver == 0)
        return error_set(0, "no NVIDIA driver is installed (libcuda.so.1)");
    cudaRuntimeGetVersion(&runtime);
    version_text(driver, driver_text);
    version_text(runtime, runtime_text);
    return error_set(ERROR_KERNEL,
                     "the NVIDIA driver is made for CUDA %s and this program for CUDA %s: a newer driver is needed",
                     driver_text, runtime_text);
}

static int explain_no_device(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible)
        return error_set(0, "the driver shows no GPU; CUDA_VISIBLE_DEVICES is \"%s\"", visible);
    return error_set(0, "the driver shows no GPU");
}

int cuda_device_count(void)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    switch (status) {
    case cudaSuccess:
        return count > 0 ? count : explain_no_device();
    case cudaErrorNoDevice:
        return explain_no_device();
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
        return explain_driver();
    case cudaErrorSystemNotReady:
        return error_set(ERROR_KERNEL,
                         "the GPUs are not ready (%s); where they are joined by NVSwitch, "
                         "nvidia-fabricmanager must be running",
                         cudaGetErrorString(status));
    default:
        return error_set(ERROR_KERNEL, "the GPUs cannot be used: %s", cudaGetErrorString(status));
    }
}

int cuda_device_describe(int device, char *text, size_t bytes)
{
    struct cudaDeviceProp properties;
    cudaError_t status = cudaGetDeviceProperties(&properties, device);
    CHECK(status == cudaSuccess, ERROR_KERNEL, "GPU %d: %s", device, cudaGetErrorString(status));
    snprintf(text, bytes, "%s, compute capability %d.%d, %d multiprocessors, %.1f GiB", properties.name,
             properties.major, properties.minor, properties.multiProcessorCount,
             (double)properties.totalGlobalMem / 0x1p30);
    return 0;
}

void cuda_versions(char *text, size_t bytes)
{
    int runtime = 0, driver = driver_version();
    char driver_text[16] = "none", runtime_text[16];
    cudaRuntimeGetVersion(&runtime);
    version_text(runtime, runtime_text);
    if (driver > 0)
        version_text(driver, driver_text);
    snprintf(text, bytes, "CUDA runtime %s, driver %s", runtime_text, driver_text);
}

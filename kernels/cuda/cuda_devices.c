/* Owns the questions about GPUs that need no kernel. The CUDA runtime is linked statically and finds the driver by
 * itself, so that one binary runs with and without one. Any thread. */
#include "kernels/cuda_devices.h"
#include "base/error.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

int cuda_device_count(void)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) { /* whatever it is: no GPU can be used */
        error_set(ERROR_KERNEL, "%s", cudaGetErrorString(status));
        return 0;
    }
    if (count == 0)
        error_set(ERROR_KERNEL, "the driver shows no device");
    return count;
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
    int runtime = 0, driver = 0;
    char driver_text[32] = "none";
    cudaRuntimeGetVersion(&runtime);
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
        snprintf(driver_text, sizeof driver_text, "%d.%d", driver / 1000, driver % 1000 / 10);
    snprintf(text, bytes, "CUDA runtime %d.%d, driver %s", runtime / 1000, runtime % 1000 / 10, driver_text);
}

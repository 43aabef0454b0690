/* Owns the emulated machine: what it has, which calls fail, the error that is kept, and profiler ranges. */
#include "runtime.h"

#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <nvtx3/nvToolsExt.h>
#include <string>
#include <vector>

namespace
{

constexpr int RUNTIME = 13000;
constexpr size_t GIB = (size_t)1 << 30;

int number_in(const char *variable)
{
    const char *wanted = std::getenv(variable);
    return wanted ? std::atoi(wanted) : 1;
}

const emulated_machine usual = {
    number_in("EMULATED_GPUS"),     RUNTIME,     9,           0,          4, cudaComputeModeDefault,
    GIB *number_in("EMULATED_GIB"), cudaSuccess, cudaSuccess, cudaSuccess};

emulated_machine machine = usual;
int calls_to_failure = 0;
cudaError_t wanted_failure = cudaSuccess;
cudaError_t noted = cudaSuccess;
std::vector<std::string> ranges;
std::string launch_range;

bool is_device(int number)
{
    return number >= 0 && number < machine.gpus;
}

} // namespace

void emulated_set_machine(const emulated_machine *wanted)
{
    machine = wanted ? *wanted : usual;
}

emulated_machine emulated_get_machine()
{
    return machine;
}

void emulated_fail(int nth, cudaError_t status)
{
    calls_to_failure = nth;
    wanted_failure = status;
}

bool emulated_failure_pending()
{
    return calls_to_failure > 0;
}

cudaError_t emulated_call()
{
    return calls_to_failure > 0 && --calls_to_failure == 0 ? wanted_failure : cudaSuccess;
}

void emulated_note(cudaError_t status)
{
    if (noted == cudaSuccess)
        noted = status;
}

cudaError_t emulated_noted()
{
    return noted;
}

int emulated_open_ranges()
{
    return (int)ranges.size();
}

const char *emulated_launch_range()
{
    return launch_range.c_str();
}

int nvtxRangePushA(const char *message)
{
    ranges.push_back(message);
    return (int)ranges.size() - 1;
}

int nvtxRangePop()
{
    ranges.pop_back();
    return (int)ranges.size();
}

cudaError_t emulated_start(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                           const std::function<cudaError_t()> &kernel)
{
    RETURN_ERROR(emulated_call());
    RETURN_ERROR(machine.kernel);
    launch_range = ranges.empty() ? "" : ranges.back();
    if (shared_bytes || !emulated_is_shape(grid, block))
        return cudaErrorInvalidConfiguration;
    return emulated_enqueue(stream, kernel);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = machine.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = RUNTIME;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    RETURN_ERROR(emulated_call());
    RETURN_ERROR(machine.count);
    *count = machine.gpus;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    RETURN_ERROR(emulated_call());
    if (!is_device(device))
        return cudaErrorInvalidDevice;
    *properties = cudaDeviceProp{"Emulated GPU", machine.memory, machine.major, machine.minor, machine.multiprocessors};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr, int device)
{
    RETURN_ERROR(emulated_call());
    *value = machine.compute_mode;
    return is_device(device) ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device)
{
    RETURN_ERROR(emulated_call());
    std::snprintf(text, (size_t)bytes, "0000:%02x:00.0", 0x10 + device);
    return is_device(device) ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaSetDevice(int device)
{
    RETURN_ERROR(emulated_call());
    return is_device(device) ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t status = noted;
    noted = cudaSuccess;
    return status;
}

const char *cudaGetErrorString(cudaError_t status)
{
    switch (status) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorDevicesUnavailable:
        return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorNoKernelImageForDevice:
        return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure:
        return emulated_failure_text();
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "invalid argument";
    }
}

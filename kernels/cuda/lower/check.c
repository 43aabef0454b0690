/* Owns the words for an error of the CUDA runtime. Any thread. */
#include "cuda_backend.h"

#include "base/error.h"

/* What a running kernel did, or broken memory or links: any later call may be the one that tells of it. */
static bool may_come_from_before(cudaError_t status)
{
    return (status >= cudaErrorIllegalAddress && status <= cudaErrorLaunchFailure) ||
           status == cudaErrorECCUncorrectable || status == cudaErrorNvlinkUncorrectable;
}

int cuda_check(cudaError_t status, const char *what)
{
    const char *hint = may_come_from_before(status)
                           ? " (an earlier launch may be the cause: run.capture = no together with "
                             "CUDA_LAUNCH_BLOCKING=1 in the environment shows which)"
                           : "";
    CHECK(status == cudaSuccess, ERROR_KERNEL, "%s: %s%s", what, cudaGetErrorString(status), hint);
    return 0;
}

/* "Not ready" would otherwise be kept as the last error. */
int cuda_check_query(cudaError_t status, const char *what, bool *ready)
{
    *ready = status == cudaSuccess;
    if (status != cudaErrorNotReady)
        return cuda_check(status, what);
    cudaGetLastError();
    return 0;
}

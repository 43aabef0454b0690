/* What the files of the emulated runtime share. */
#ifndef TESKD_TESTS_EMULATED_RUNTIME_H
#define TESKD_TESTS_EMULATED_RUNTIME_H

#include "emulated.h"

#include <functional>

using emulated_work = std::function<cudaError_t()>;

/* Opens the device's memory to the host while it lives. */
struct emulated_access {
    emulated_access();
    ~emulated_access();
    emulated_access(const emulated_access &) = delete;
    emulated_access &operator=(const emulated_access &) = delete;
};

/* What a call of the runtime begins with: the failure that a test wants of it, or none. */
cudaError_t emulated_call();

/* An error where a capture does not allow what the call does, which ends that capture. */
cudaError_t emulated_outside_capture();

/* Both. */
cudaError_t emulated_call_outside_capture();

/* Does the work, keeps it for later or records it. */
cudaError_t emulated_enqueue(cudaStream_t stream, emulated_work work);

/* Waits for all streams, as freeing memory does. */
void emulated_finish_all();

/* The error of something that was done: kept until cudaGetLastError, and until then given by every call that does more.
 */
void emulated_note(cudaError_t status);
cudaError_t emulated_noted();

#define RETURN_ERROR(call)                                                                                             \
    if (cudaError_t status_ = (call); status_ != cudaSuccess)                                                          \
    return status_

#endif

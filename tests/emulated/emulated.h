/* The emulated GPU, as tests see it.
 *
 * Memory of cudaMalloc may be touched by kernels, copies and submitted work only: a host access is a segmentation
 * fault. It is filled with ones (NaNs) when it is given out, and guarded by the address sanitizer. A stream does its
 * work at once, or, when deferred, as late as it may: when something waits for it. Then a copy reads pageable host
 * memory late, too. Captured work runs stream by stream, each as late as the recorded waits allow.
 *
 * A whole program is told by its environment: EMULATED_DEFER (set: streams are deferred), EMULATED_GPUS (how many),
 * EMULATED_GIB (memory of each), EMULATED_REPORT (set: says at its end on stderr how many graphs were launched). C and
 * C++. One thread.
 */
#ifndef TESKD_TESTS_EMULATED_H
#define TESKD_TESTS_EMULATED_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the host is kept out of the device's memory; on to begin with. */
void emulated_protect(bool on);

/* Whether work waits until it must be done; off to begin with. */
void emulated_defer(bool on);

/* The machine; a status that is not cudaSuccess is what that step gives. */
typedef struct {
    int gpus, driver; /* driver: version, 0 for none */
    int major, minor, multiprocessors, compute_mode;
    size_t memory; /* bytes of a GPU */
    cudaError_t count, context, kernel;
} emulated_machine;

/* Kept until the next call; NULL for the usual one: one GPU of compute capability 9.0 with 1 GiB. */
void emulated_set_machine(const emulated_machine *machine);
emulated_machine emulated_get_machine(void);

/* Lets the nth call from now on that may fail give `status`; n = 0: none. True while that call is still to come. */
void emulated_fail(int nth, cudaError_t status);
bool emulated_failure_pending(void);

/* Does, or records, what a library would do on the stream: `work` with a copy of `args`. */
cudaError_t emulated_submit(cudaStream_t stream, void (*work)(const void *args), const void *args, size_t bytes);

/* Work that waits for another process: it is called again, with the same state, until it returns true. */
cudaError_t emulated_submit_until(cudaStream_t stream, bool (*work)(void *state), void *state);

/* Work that fails when it is done. */
cudaError_t emulated_submit_failure(cudaStream_t stream, cudaError_t status);

/* Pieces of work that wait to be done. */
size_t emulated_pending(void);

/* Bytes of device memory that are given out. */
size_t emulated_used(void);

/* Profiler ranges: how many are open, and the text of the innermost one when a kernel was last started. */
int emulated_open_ranges(void);
const char *emulated_launch_range(void);

#ifdef __cplusplus
}
#endif
#endif

/* Owns recordings: launches captured from the stream into a CUDA graph.
 *
 * The capture is thread-local: what cannot be replayed (an allocation, a wait) is then an error when this thread does
 * it, and free to the loader's and the libraries' own threads. Invariant: a recording is whole. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <stdlib.h>

struct recording {
    cudaGraphExec_t graph;
};

int cuda_record_begin(backend *self)
{
    cuda_backend *device = (cuda_backend *)self;
    error_set(0, "%s", ""); /* what stands there at the end was said since */
    TRY(cuda_check(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal), "beginning a recording"));
    device->recording = true;
    return 0;
}

/* Uploaded now, so that the first replay is as quick as the others. Sums over the ranks come from a stream of higher
 * priority, which their nodes keep only when asked to. */
static int make_ready(const cuda_backend *device, cudaGraph_t captured, recording *r)
{
    TRY(cuda_check(cudaGraphInstantiate(&r->graph, captured, cudaGraphInstantiateFlagUseNodePriority),
                   "making a recording ready"));
    return cuda_check(cudaGraphUpload(r->graph, device->stream), "making a recording ready");
}

int cuda_record_end(backend *self, recording **out)
{
    cuda_backend *device = (cuda_backend *)self;
    cudaGraph_t captured = NULL;
    device->recording = false;
    cudaError_t status = cudaStreamEndCapture(device->stream, &captured);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return *error_message() ? ERROR_KERNEL : cuda_check(status, "ending a recording");
    }
    recording *r = calloc(1, sizeof *r);
    int code = r ? make_ready(device, captured, r) : error_set(ERROR_MEMORY, "no memory for a recording");
    cudaGraphDestroy(captured);
    if (code < 0) {
        cuda_recording_release(self, r);
        return code;
    }
    *out = r;
    return 0;
}

int cuda_replay(backend *self, recording *r)
{
    return cuda_check(cudaGraphLaunch(r->graph, ((cuda_backend *)self)->stream), "replaying a recording");
}

void cuda_recording_release(backend *self, recording *r)
{
    (void)self;
    if (r && r->graph)
        cudaGraphExecDestroy(r->graph);
    free(r);
}

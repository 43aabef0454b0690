/* Owns captures: launches captured from the stream into a CUDA graph.
 *
 * The capture is thread-local: what cannot be replayed (an allocation, a wait) is then an error when this thread does
 * it. The loader's and the libraries' own threads are free to. Invariant: a capture is whole. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <stdlib.h>

struct captured_step {
    cudaGraphExec_t graph;
};

int cuda_capture_begin(backend *self)
{
    cuda_backend *device = (cuda_backend *)self;
    error_set(0, "%s", ""); /* what stands there at the end was said since */
    TRY(cuda_check(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal), "beginning a capture"));
    device->capturing = true;
    return 0;
}

/* Uploaded now, so that the first replay is as quick as the others. Reductions come from a stream of higher
 * priority, which their nodes keep only when asked to. */
static int make_ready(const cuda_backend *device, cudaGraph_t captured, captured_step *r)
{
    TRY(cuda_check(cudaGraphInstantiate(&r->graph, captured, cudaGraphInstantiateFlagUseNodePriority),
                   "making a capture ready"));
    return cuda_check(cudaGraphUpload(r->graph, device->stream), "making a capture ready");
}

int cuda_capture_end(backend *self, captured_step **out)
{
    cuda_backend *device = (cuda_backend *)self;
    cudaGraph_t captured = NULL;
    device->capturing = false;
    cudaError_t status = cudaStreamEndCapture(device->stream, &captured);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return *error_message() ? ERROR_KERNEL : cuda_check(status, "ending a capture");
    }
    captured_step *r = calloc(1, sizeof *r);
    int code = r ? make_ready(device, captured, r) : error_set(ERROR_MEMORY, "no memory for a capture");
    cudaGraphDestroy(captured);
    if (code < 0) {
        cuda_release_captured(self, r);
        return code;
    }
    *out = r;
    return 0;
}

int cuda_replay(backend *self, captured_step *r)
{
    return cuda_check(cudaGraphLaunch(r->graph, ((cuda_backend *)self)->stream), "replaying a capture");
}

void cuda_release_captured(backend *self, captured_step *r)
{
    (void)self;
    if (r && r->graph)
        cudaGraphExecDestroy(r->graph);
    free(r);
}

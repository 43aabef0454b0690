/* Owns the lanes of uploads. They share one copy stream, beside the stream of the launches; two events per lane keep
 * them in order. Invariant: an event that was never recorded holds nobody up. One thread. */
#include "cuda_backend.h"

static const char what[] = "an upload to the GPU";

int cuda_upload(backend *self, int lane, void *to, const void *from, size_t bytes)
{
    cuda_backend *device = (cuda_backend *)self;
    const cuda_lane *l = &device->lanes[lane];
    cudaError_t status = cudaStreamWaitEvent(device->copy_stream, l->released, 0);
    if (status == cudaSuccess)
        status = cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device->copy_stream);
    if (status == cudaSuccess)
        status = cudaEventRecord(l->uploaded, device->copy_stream);
    return cuda_check(status, what);
}

int cuda_upload_use(backend *self, int lane)
{
    cuda_backend *device = (cuda_backend *)self;
    return cuda_check(cudaStreamWaitEvent(device->stream, device->lanes[lane].uploaded, 0), what);
}

int cuda_upload_release(backend *self, int lane)
{
    cuda_backend *device = (cuda_backend *)self;
    return cuda_check(cudaEventRecord(device->lanes[lane].released, device->stream), what);
}

int cuda_upload_done(backend *self, int lane, bool *done)
{
    return cuda_check_query(cudaEventQuery(((cuda_backend *)self)->lanes[lane].uploaded), what, done);
}

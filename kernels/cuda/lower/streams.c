/* Owns the backend's streams and events, and the timestamps on its stream. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <stdlib.h>

int cuda_streams_open(cuda_backend *self)
{
    cudaStream_t *streams[] = {&self->stream, &self->copy_stream};
    for (int i = 0; i < 2; i++)
        TRY(cuda_check(cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking), "a stream of the GPU"));
    self->timer.stream = self->stream;
    for (int i = 0; i < UPLOAD_LANES; i++) {
        cuda_lane *lane = &self->lanes[i];
        TRY(cuda_check(cudaEventCreateWithFlags(&lane->uploaded, cudaEventDisableTiming), "an event"));
        TRY(cuda_check(cudaEventCreateWithFlags(&lane->released, cudaEventDisableTiming), "an event"));
    }
    return cuda_staging_open(&self->staging);
}

static void destroy_event(cudaEvent_t *event)
{
    if (*event)
        cudaEventDestroy(*event);
    *event = NULL;
}

static void destroy_stream(cudaStream_t *stream)
{
    if (*stream)
        cudaStreamDestroy(*stream);
    *stream = NULL;
}

void cuda_streams_close(cuda_backend *self)
{
    for (uint32_t i = 0; i < self->n_timestamps; i++)
        destroy_event(&self->timestamps[i]);
    free(self->timestamps);
    self->timestamps = NULL;
    self->n_timestamps = 0;
    for (int i = 0; i < UPLOAD_LANES; i++) {
        destroy_event(&self->lanes[i].uploaded);
        destroy_event(&self->lanes[i].released);
    }
    destroy_stream(&self->stream);
    destroy_stream(&self->copy_stream);
    cuda_staging_close(&self->staging);
}

static int have_timestamps(cuda_backend *self, uint32_t n)
{
    if (n <= self->n_timestamps)
        return 0;
    cudaEvent_t *timestamps = realloc(self->timestamps, n * sizeof(cudaEvent_t));
    CHECK(timestamps, ERROR_MEMORY, "no memory for %u timestamps", n);
    self->timestamps = timestamps;
    for (; self->n_timestamps < n; self->n_timestamps++)
        TRY(cuda_check(cudaEventCreate(&timestamps[self->n_timestamps]), "an event"));
    return 0;
}

int cuda_timestamp(backend *self, uint32_t number)
{
    cuda_backend *device = (cuda_backend *)self;
    TRY(have_timestamps(device, number + 1));
    return cuda_check(cudaEventRecord(device->timestamps[number], device->stream), "a timestamp");
}

int cuda_elapsed(backend *self, uint32_t n, double *seconds)
{
    const cuda_backend *device = (const cuda_backend *)self;
    CHECK(n <= device->n_timestamps, ERROR_KERNEL, "times of %u timestamps are wanted, %u were made", n,
          device->n_timestamps);
    if (n > 0)
        TRY(cuda_check(cudaEventSynchronize(device->timestamps[n - 1]), "waiting for the GPU"));
    for (uint32_t i = 1; i < n; i++) {
        float milliseconds;
        TRY(cuda_check(cudaEventElapsedTime(&milliseconds, device->timestamps[i - 1], device->timestamps[i]),
                       "time of a launch"));
        seconds[i - 1] = 1e-3 * (double)milliseconds;
    }
    return 0;
}

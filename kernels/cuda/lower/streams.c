/* Owns the backend's streams and events, and the rows of timestamps on its stream. One thread. */
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

static void destroy_times(cuda_times *times)
{
    for (uint32_t i = 0; i < times->n; i++)
        destroy_event(&times->events[i]);
    free(times->events);
    *times = (cuda_times){.n = 0};
}

void cuda_streams_close(cuda_backend *self)
{
    for (int row = 0; row < TIMESTAMP_ROWS; row++)
        destroy_times(&self->times[row]);
    for (int i = 0; i < UPLOAD_LANES; i++) {
        destroy_event(&self->lanes[i].uploaded);
        destroy_event(&self->lanes[i].released);
    }
    destroy_stream(&self->stream);
    destroy_stream(&self->copy_stream);
    cuda_staging_close(&self->staging);
}

static int have_timestamps(cuda_times *times, uint32_t n)
{
    if (n <= times->n)
        return 0;
    cudaEvent_t *events = realloc(times->events, n * sizeof *events);
    CHECK(events, ERROR_MEMORY, "no memory for %u timestamps", n);
    times->events = events;
    for (; times->n < n; times->n++)
        TRY(cuda_check(cudaEventCreate(&events[times->n]), "an event"));
    return 0;
}

/* In a capture an event would only order the captured work, unless it is external. */
int cuda_timestamp(backend *self, timestamp_row row, uint32_t number)
{
    cuda_backend *device = (cuda_backend *)self;
    cuda_times *times = &device->times[row];
    TRY(have_timestamps(times, number + 1));
    return cuda_check(cudaEventRecordWithFlags(times->events[number], device->stream,
                                               device->capturing ? cudaEventRecordExternal : cudaEventRecordDefault),
                      "a timestamp");
}

int cuda_elapsed(backend *self, timestamp_row row, uint32_t n, double *seconds)
{
    const cuda_times *times = &((const cuda_backend *)self)->times[row];
    CHECK(n <= times->n, ERROR_KERNEL, "times of %u timestamps are wanted, %u were made", n, times->n);
    if (n > 0)
        TRY(cuda_check(cudaEventSynchronize(times->events[n - 1]), "waiting for the GPU"));
    for (uint32_t i = 1; i < n; i++) {
        float milliseconds;
        TRY(cuda_check(cudaEventElapsedTime(&milliseconds, times->events[i - 1], times->events[i]),
                       "time of a launch"));
        seconds[i - 1] = 1e-3 * (double)milliseconds;
    }
    return 0;
}

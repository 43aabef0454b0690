/* Owns the GPU's memory and the copies to and from it, all in order on the backend's stream.
 *
 * CUDA does not promise for pageable host memory that a copy has read its source when the call returns, nor that the
 * call does not wait for the stream. So small writes go through slots of pinned memory, each free again when its copy
 * is done, and large ones wait. write_ready tells beforehand, for callers that must watch something else while they
 * wait. Invariant: no copy from the caller's memory is under way when a call returns. One thread. */
#include "cuda_backend.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 64, SLOT_BYTES = 64 << 10 };

void *cuda_memory_alloc(backend *self, size_t bytes)
{
    (void)self;
    void *memory = NULL;
    cudaError_t status = cudaMalloc(&memory, bytes ? bytes : 1);
    if (status == cudaSuccess)
        return memory;
    cudaGetLastError(); /* no error of the next launch */
    cuda_check(status, "memory of the GPU");
    return NULL;
}

void cuda_memory_free(backend *self, void *memory)
{
    (void)self;
    cudaFree(memory);
}

int cuda_memory_free_bytes(backend *self, size_t *bytes)
{
    size_t total;
    (void)self;
    return cuda_check(cudaMemGetInfo(bytes, &total), "free memory of the GPU");
}

static int write_small(cuda_backend *device, void *to, const void *from, size_t bytes)
{
    cuda_staging *s = &device->staging;
    unsigned slot = s->next++ % SLOTS;
    char *pinned = s->memory + (size_t)slot * SLOT_BYTES;
    TRY(cuda_check(cudaEventSynchronize(s->copied[slot]), "writing to the GPU"));
    memcpy(pinned, from, bytes);
    TRY(cuda_check(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, device->stream), "writing to the GPU"));
    return cuda_check(cudaEventRecord(s->copied[slot], device->stream), "writing to the GPU");
}

int cuda_memory_write(backend *self, void *to, const void *from, size_t bytes)
{
    cuda_backend *device = (cuda_backend *)self;
    CHECK(!device->capturing, ERROR_KERNEL, "a write cannot be captured: its source may change");
    if (bytes <= SLOT_BYTES)
        return write_small(device, to, from, bytes);
    TRY(cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device->stream), "writing to the GPU"));
    return cuda_check(cudaStreamSynchronize(device->stream), "writing to the GPU");
}

int cuda_memory_write_ready(backend *self, size_t bytes, bool *ready)
{
    const cuda_backend *device = (const cuda_backend *)self;
    const cuda_staging *s = &device->staging;
    cudaError_t status =
        bytes <= SLOT_BYTES ? cudaEventQuery(s->copied[s->next % SLOTS]) : cudaStreamQuery(device->stream);
    return cuda_check_query(status, "writing to the GPU", ready);
}

int cuda_memory_read(backend *self, void *to, const void *from, size_t bytes)
{
    cuda_backend *device = (cuda_backend *)self;
    TRY(cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device->stream), "reading from the GPU"));
    return cuda_check(cudaStreamSynchronize(device->stream), "reading from the GPU");
}

int cuda_memory_copy(backend *self, void *to, const void *from, size_t bytes)
{
    cudaStream_t stream = ((cuda_backend *)self)->stream;
    return cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copying on the GPU");
}

int cuda_memory_zero(backend *self, void *memory, size_t bytes)
{
    return cuda_check(cudaMemsetAsync(memory, 0, bytes, ((cuda_backend *)self)->stream), "zeroing on the GPU");
}

int cuda_synchronize(backend *self)
{
    cuda_backend *device = (cuda_backend *)self;
    TRY(cuda_check(cudaStreamSynchronize(device->stream), "waiting for the GPU"));
    return cuda_check(cudaStreamSynchronize(device->copy_stream), "waiting for uploads to the GPU");
}

void *cuda_pinned_alloc(backend *self, size_t bytes)
{
    (void)self;
    void *memory = NULL;
    cudaError_t status = cudaMallocHost(&memory, bytes ? bytes : 1);
    if (status == cudaSuccess)
        return memory;
    cudaGetLastError();
    cuda_check(status, "pinned memory");
    return NULL;
}

void cuda_pinned_free(backend *self, void *memory)
{
    (void)self;
    cudaFreeHost(memory);
}

int cuda_staging_open(cuda_staging *s)
{
    s->copied = calloc(SLOTS, sizeof(cudaEvent_t));
    CHECK(s->copied, ERROR_MEMORY, "no memory for the events of writes");
    TRY(cuda_check(cudaMallocHost((void **)&s->memory, (size_t)SLOTS * SLOT_BYTES), "pinned memory for writes"));
    for (int i = 0; i < SLOTS; i++)
        TRY(cuda_check(cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming), "an event"));
    return 0;
}

void cuda_staging_close(cuda_staging *s)
{
    for (int i = 0; s->copied && i < SLOTS; i++)
        if (s->copied[i])
            cudaEventDestroy(s->copied[i]);
    if (s->memory)
        cudaFreeHost(s->memory);
    free(s->copied);
    *s = (cuda_staging){0};
}

/* Owns measurements on the GPU. Invariant: a failed one leaves no error behind for the next launch. One thread. */
#include "timing.h"

#include <math.h>
#include <stdbool.h>

enum { TIMED_RUNS = 8 };

static float between_events(cudaStream_t stream, const cudaEvent_t event[2], timed_work *work, const void *what)
{
    float time = INFINITY;
    bool works = work(what) == 0 && cudaEventRecord(event[0], stream) == cudaSuccess;
    for (int i = 0; i < TIMED_RUNS && works; i++)
        works = work(what) == 0;
    works = works && cudaEventRecord(event[1], stream) == cudaSuccess && cudaEventSynchronize(event[1]) == cudaSuccess;
    return works && cudaEventElapsedTime(&time, event[0], event[1]) == cudaSuccess ? time / TIMED_RUNS : INFINITY;
}

float cuda_time_work(cudaStream_t stream, timed_work *work, const void *what)
{
    cudaEvent_t event[2] = {NULL, NULL};
    float time = INFINITY;
    if (cudaEventCreate(&event[0]) == cudaSuccess && cudaEventCreate(&event[1]) == cudaSuccess)
        time = between_events(stream, event, work, what);
    for (int i = 0; i < 2; i++)
        if (event[i])
            cudaEventDestroy(event[i]);
    cudaGetLastError();
    return time;
}

/* Owns measurements on the GPU. Invariant: a failed one leaves no error behind for the next launch. One thread. */
#include "kernels/cuda/lower/timing.h"

#include <math.h>

enum { MOST_RUNS = 16, LAUNCHES = 3, MOST_WARMING = 10000 };

/* Long enough for the resolution of events; long enough for the clocks to rise; how many times the best is too slow. */
static const float measured_ms = 1, warming_ms = 200, hopeless = 4;

typedef struct {
    cudaStream_t stream;
    cudaEvent_t begin, end;
} stopwatch;

static bool open_stopwatch(stopwatch *w)
{
    return cudaEventCreate(&w->begin) == cudaSuccess && cudaEventCreate(&w->end) == cudaSuccess;
}

static void close_stopwatch(const stopwatch *w)
{
    if (w->begin)
        cudaEventDestroy(w->begin);
    if (w->end)
        cudaEventDestroy(w->end);
}

static float time_once(const stopwatch *w, timed_work *work, const void *what)
{
    float time = INFINITY;
    bool works = cudaEventRecord(w->begin, w->stream) == cudaSuccess && work(what) == 0 &&
                 cudaEventRecord(w->end, w->stream) == cudaSuccess && cudaEventSynchronize(w->end) == cudaSuccess;
    return works && cudaEventElapsedTime(&time, w->begin, w->end) == cudaSuccess ? time : INFINITY;
}

/* NULL where it cannot be captured: then it cannot be in a step either. */
static cudaGraphExec_t capture(cudaStream_t stream, timed_work *work, const void *what, int runs)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    bool works = true;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return NULL;
    for (int i = 0; i < runs && works; i++)
        works = work(what) == 0;
    works = cudaStreamEndCapture(stream, &graph) == cudaSuccess && works;
    if (works && cudaGraphInstantiate(&ready, graph, 0) != cudaSuccess)
        ready = NULL;
    if (ready)
        cudaGraphUpload(ready, stream);
    if (graph)
        cudaGraphDestroy(graph);
    return ready;
}

typedef struct {
    cudaGraphExec_t graph;
    cudaStream_t stream;
} captured_work;

static int replay(const void *what)
{
    const captured_work *r = what;
    return cudaGraphLaunch(r->graph, r->stream) == cudaSuccess ? 0 : -1;
}

static void warm_up(const stopwatch *w, const captured_work *captured)
{
    float spent = 0;
    for (int i = 0; i < MOST_WARMING && spent < warming_ms; i++)
        spent += time_once(w, replay, captured);
}

static float time_captured(cuda_timer *timer, const stopwatch *w, timed_work *work, const void *what, int runs)
{
    float best = INFINITY;
    const captured_work captured = {capture(w->stream, work, what, runs), w->stream};
    if (!captured.graph)
        return INFINITY;
    if (!timer->is_warm)
        warm_up(w, &captured);
    timer->is_warm = true;
    for (int i = 0; i < LAUNCHES; i++)
        best = fminf(best, time_once(w, replay, &captured));
    cudaGraphExecDestroy(captured.graph);
    return best / (float)runs;
}

/* The first time loads the kernels, which cannot be captured. The second says how many fill a measurement. */
static float measure(cuda_timer *timer, const stopwatch *w, timed_work *work, const void *what, float best)
{
    float time = time_once(w, work, what);
    if (isfinite(time))
        time = time_once(w, work, what);
    if (!isfinite(time) || time > hopeless * best + measured_ms)
        return time;
    float runs = measured_ms / fmaxf(time, measured_ms / MOST_RUNS);
    return time_captured(timer, w, work, what, runs > 1 ? (int)runs : 1);
}

float cuda_time_work(cuda_timer *timer, timed_work *work, const void *what, float best)
{
    stopwatch w = {.stream = timer->stream};
    float time = open_stopwatch(&w) ? measure(timer, &w, work, what, best) : INFINITY;
    close_stopwatch(&w);
    cudaGetLastError();
    return time;
}

bool cuda_work_works(cudaStream_t stream, timed_work *work, const void *what)
{
    bool works = work(what) == 0 && cudaStreamSynchronize(stream) == cudaSuccess;
    cudaGetLastError();
    return works;
}

bool cuda_timing_memory(cudaStream_t stream, int pieces, const size_t *bytes, void **piece)
{
    char *memory = NULL;
    size_t total = 0;
    for (int i = 0; i < pieces; i++)
        total += (bytes[i] + 255) / 256 * 256;
    if (cudaMalloc((void **)&memory, total) != cudaSuccess ||
        cudaMemsetAsync(memory, 0, total, stream) != cudaSuccess) {
        cudaFree(memory);
        cudaGetLastError();
        return false;
    }
    for (int i = 0; i < pieces; i++) {
        piece[i] = memory;
        memory += (bytes[i] + 255) / 256 * 256;
    }
    return true;
}

/* Owns the emulated streams, events and graphs. Invariant: the work of a stream is done in the order of the calls, and
 * what an event stands for is done before what waits for it. */
#include "runtime.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <sched.h>
#include <set>
#include <vector>

namespace
{

/* A piece of captured work, or a wait for the work before `up_to` of another stream. */
struct captured_work {
    cudaStream_t on;
    emulated_work work;
    cudaStream_t waits_for;
    size_t up_to;
};

/* How far a stream's work goes, and how much of it the stream that began the capture waits for. */
struct captured_stream {
    size_t end = 0, joined = 0;
};

struct capture {
    cudaStream_t origin;
    cudaStreamCaptureMode mode;
    bool valid = true, active = true;
    std::vector<captured_work> works;
    std::map<cudaStream_t, captured_stream> streams;
};

/* When an event was captured: in a stream's work, or in a capture. */
struct moment {
    cudaStream_t on;
    bool done = false;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<capture> captured;
    size_t position = 0;
};

} // namespace

struct CUstream_st {
    int priority = 0; /* smaller is more urgent */
    std::deque<emulated_work> queue;
    std::shared_ptr<capture> capturing;
};

struct CUevent_st {
    std::shared_ptr<moment> last;
    bool timing;
};

struct CUgraph_st {
    cudaStream_t origin;
    std::vector<captured_work> works;
};

struct CUgraphExec_st {
    std::shared_ptr<const CUgraph_st> graph;
};

namespace
{

CUstream_st legacy; /* the stream NULL */
std::set<cudaStream_t> streams{&legacy};
std::set<cudaEvent_t> events;
std::shared_ptr<capture> active;

/* How many graphs were launched, told at the end. */
struct replay_count {
    size_t replays = 0;

    ~replay_count()
    {
        if (std::getenv("EMULATED_REPORT"))
            std::fprintf(stderr, "emulated GPU: %zu replays\n", replays);
    }
};

replay_count launched;
bool deferred = std::getenv("EMULATED_DEFER") != nullptr;

cudaStream_t named(cudaStream_t stream)
{
    return stream ? stream : &legacy;
}

cudaError_t invalidate(capture &c, cudaError_t status)
{
    c.valid = false;
    return status;
}

/* Does the oldest piece of work. cudaErrorNotReady: it waits for another process, and stays the oldest. After a failure
 * nothing more is done. */
cudaError_t step(cudaStream_t stream)
{
    emulated_work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    emulated_access access;
    cudaError_t status = work();
    if (status == cudaErrorNotReady) {
        stream->queue.push_front(std::move(work));
    } else if (status != cudaSuccess) {
        emulated_note(status);
        for (cudaStream_t s : streams)
            s->queue.clear();
    }
    return status;
}

/* As far as it goes without waiting for another process. */
cudaError_t advance(cudaStream_t stream)
{
    while (!stream->queue.empty())
        RETURN_ERROR(step(stream));
    return cudaSuccess;
}

cudaError_t finish(cudaStream_t stream)
{
    cudaError_t status;
    while ((status = advance(stream)) == cudaErrorNotReady)
        sched_yield();
    return status;
}

cudaError_t finish_until(const moment &m)
{
    while (!m.done && streams.count(m.on) && !m.on->queue.empty())
        RETURN_ERROR(step(m.on));
    return cudaSuccess;
}

/* A run of a graph: each stream goes on when another waits for it. */
struct replay {
    std::shared_ptr<const CUgraph_st> graph;
    std::map<cudaStream_t, size_t> next;

    cudaError_t advance(cudaStream_t stream, size_t up_to)
    {
        for (size_t &i = next[stream]; i < up_to; i++) {
            const captured_work &w = graph->works[i];
            if (w.on == stream)
                RETURN_ERROR(w.waits_for ? advance(w.waits_for, w.up_to) : w.work());
        }
        return cudaSuccess;
    }
};

void capture_work(const std::shared_ptr<capture> &c, captured_work work)
{
    cudaStream_t on = work.on;
    c->works.push_back(std::move(work));
    c->streams[on].end = c->works.size();
}

/* A captured event is waited for: the waiting stream belongs to the capture from then on. */
cudaError_t wait_captured(cudaStream_t stream, const moment &m)
{
    const std::shared_ptr<capture> &c = m.captured;
    if (!c->active || (stream->capturing && stream->capturing != c))
        return cudaErrorCapturedEvent;
    if (!c->valid)
        return cudaErrorStreamCaptureInvalidated;
    stream->capturing = c;
    if (stream == c->origin)
        c->streams[m.on].joined = m.position;
    capture_work(c, captured_work{stream, nullptr, m.on, m.position});
    return cudaSuccess;
}

bool is_joined(const capture &c)
{
    for (const auto &s : c.streams)
        if (s.first != c.origin && s.second.joined < s.second.end)
            return false;
    return true;
}

/* 0 when the event can be waited for by the host. */
cudaError_t check_event(cudaEvent_t event)
{
    if (!event->last || !event->last->captured)
        return cudaSuccess;
    if (event->last->captured->active)
        event->last->captured->valid = false;
    return cudaErrorCapturedEvent;
}

} // namespace

void emulated_defer(bool on)
{
    deferred = on;
    if (!on)
        emulated_finish_all();
}

void emulated_finish_all()
{
    for (cudaStream_t s : std::set<cudaStream_t>(streams))
        finish(s);
}

cudaError_t emulated_call_outside_capture()
{
    RETURN_ERROR(emulated_call());
    return emulated_outside_capture();
}

cudaError_t emulated_outside_capture()
{
    if (active && active->mode != cudaStreamCaptureModeRelaxed)
        return invalidate(*active, cudaErrorStreamCaptureUnsupported);
    return cudaSuccess;
}

cudaError_t emulated_enqueue(cudaStream_t stream, emulated_work work)
{
    stream = named(stream);
    if (stream->capturing) {
        if (!stream->capturing->valid)
            return cudaErrorStreamCaptureInvalidated;
        capture_work(stream->capturing, captured_work{stream, std::move(work), nullptr, 0});
        return cudaSuccess;
    }
    RETURN_ERROR(emulated_noted());
    stream->queue.push_back(std::move(work));
    cudaError_t status = deferred ? cudaSuccess : advance(stream);
    return status == cudaErrorNotReady ? cudaSuccess : status;
}

cudaError_t emulated_submit(cudaStream_t stream, void (*work)(const void *args), const void *args, size_t bytes)
{
    const char *first = static_cast<const char *>(args);
    std::vector<char> copy(first, first + bytes);
    return emulated_enqueue(stream, [work, copy] {
        work(copy.data());
        return cudaSuccess;
    });
}

cudaError_t emulated_submit_until(cudaStream_t stream, bool (*work)(void *state), void *state)
{
    return emulated_enqueue(stream, [=] { return work(state) ? cudaSuccess : cudaErrorNotReady; });
}

cudaError_t emulated_submit_failure(cudaStream_t stream, cudaError_t status)
{
    return emulated_enqueue(stream, [status] { return status; });
}

size_t emulated_pending()
{
    size_t pieces = 0;
    for (cudaStream_t s : streams)
        pieces += s->queue.size();
    return pieces;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    RETURN_ERROR(emulated_call());
    *stream = new CUstream_st;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    RETURN_ERROR(cudaStreamCreateWithFlags(stream, flags));
    (*stream)->priority = priority;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    RETURN_ERROR(emulated_call());
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    finish(stream);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    stream = named(stream);
    RETURN_ERROR(emulated_call());
    if (stream->capturing)
        return invalidate(*stream->capturing, cudaErrorStreamCaptureUnsupported);
    finish(stream);
    return emulated_noted();
}

/* Polling moves things on: whoever polls would else wait forever. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    stream = named(stream);
    RETURN_ERROR(emulated_call());
    if (stream->capturing)
        return invalidate(*stream->capturing, cudaErrorStreamCaptureUnsupported);
    if (!stream->queue.empty())
        step(stream);
    RETURN_ERROR(emulated_noted());
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    stream = named(stream);
    RETURN_ERROR(emulated_call());
    std::shared_ptr<moment> m = event->last;
    if (!m)
        return cudaSuccess;
    if (m->captured)
        return wait_captured(stream, *m);
    if (stream->capturing)
        return invalidate(*stream->capturing, cudaErrorStreamCaptureIsolation);
    return emulated_enqueue(stream, [m] { return finish_until(*m); });
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    RETURN_ERROR(emulated_call());
    *event = new CUevent_st{nullptr, (flags & cudaEventDisableTiming) == 0};
    events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    events.erase(event);
    delete event;
    return cudaSuccess;
}

/* An external event is no part of the capture's order: each replay records it. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    stream = named(stream);
    if (flags == cudaEventRecordDefault)
        return cudaEventRecord(event, stream);
    RETURN_ERROR(emulated_call());
    if (flags != cudaEventRecordExternal || !stream->capturing)
        return cudaErrorInvalidValue;
    return emulated_enqueue(stream, [event, stream] {
        if (events.count(event)) {
            event->last = std::make_shared<moment>();
            event->last->on = stream;
            event->last->done = true;
            event->last->time = std::chrono::steady_clock::now();
        }
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    stream = named(stream);
    RETURN_ERROR(emulated_call());
    std::shared_ptr<moment> m = std::make_shared<moment>();
    m->on = stream;
    if (stream->capturing) {
        if (!stream->capturing->valid)
            return cudaErrorStreamCaptureInvalidated;
        m->captured = stream->capturing;
        m->position = stream->capturing->works.size();
        event->last = m;
        return cudaSuccess;
    }
    event->last = m;
    return emulated_enqueue(stream, [m] {
        m->done = true;
        m->time = std::chrono::steady_clock::now();
        return cudaSuccess;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    RETURN_ERROR(emulated_call());
    RETURN_ERROR(check_event(event));
    while (event->last && finish_until(*event->last) == cudaErrorNotReady)
        sched_yield();
    return emulated_noted();
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    RETURN_ERROR(emulated_call());
    RETURN_ERROR(check_event(event));
    if (event->last && !event->last->done && !event->last->on->queue.empty())
        step(event->last->on);
    RETURN_ERROR(emulated_noted());
    return !event->last || event->last->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    RETURN_ERROR(emulated_call());
    RETURN_ERROR(check_event(begin));
    RETURN_ERROR(check_event(end));
    if (!begin->timing || !end->timing || !begin->last || !end->last)
        return cudaErrorInvalidResourceHandle;
    if (!begin->last->done || !end->last->done)
        return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->last->time - begin->last->time).count();
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    RETURN_ERROR(emulated_call());
    if (!stream) /* the legacy stream cannot be captured */
        return cudaErrorStreamCaptureUnsupported;
    if (active)
        return cudaErrorInvalidValue;
    active = std::make_shared<capture>();
    active->origin = stream;
    active->mode = mode;
    stream->capturing = active;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    cudaError_t wanted = emulated_call();
    *graph = nullptr;
    if (!active || stream != active->origin)
        return cudaErrorStreamCaptureUnmatched;
    std::shared_ptr<capture> c = active;
    active = nullptr;
    c->active = false;
    for (cudaStream_t s : streams)
        s->capturing = nullptr;
    RETURN_ERROR(wanted);
    if (!c->valid)
        return cudaErrorStreamCaptureInvalidated;
    if (!is_joined(*c))
        return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{c->origin, std::move(c->works)};
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    RETURN_ERROR(emulated_call());
    const std::shared_ptr<capture> &c = named(stream)->capturing;
    *status = !c         ? cudaStreamCaptureStatusNone
              : c->valid ? cudaStreamCaptureStatusActive
                         : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

/* A real one would drop the priorities without a word. */
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long flags)
{
    RETURN_ERROR(emulated_call_outside_capture());
    for (const captured_work &w : graph->works)
        if (w.on->priority != 0 && !(flags & cudaGraphInstantiateFlagUseNodePriority))
            return cudaErrorInvalidValue;
    *ready = new CUgraphExec_st{std::make_shared<const CUgraph_st>(*graph)};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return emulated_call_outside_capture();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream)
{
    RETURN_ERROR(emulated_call_outside_capture());
    launched.replays++;
    std::shared_ptr<replay> run = std::make_shared<replay>(replay{ready->graph, {}});
    return emulated_enqueue(stream, [run] { return run->advance(run->graph->origin, run->graph->works.size()); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready)
{
    delete ready;
    return cudaSuccess;
}

/* The emulated device: runs a grid's blocks one after another, a block's threads as fibers.
 *
 * A fiber runs one thread after another until one waits; then that thread keeps the fiber and another fiber goes on
 * with the rest. Every second block runs its threads backwards, so that a missing barrier shows in one of the two
 * orders; every second launch runs its blocks backwards, for a block must not need what another one does. Invariant:
 * exactly one of scheduler and fibers runs. One thread uses the device. */
#include "cuda_runtime.h"
#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace
{

constexpr size_t STACK_BYTES = 256 << 10;
constexpr unsigned MAX_THREADS = 1024, WARP = 32;

enum class wait { NOTHING, BLOCK, WARP_MATES };

/* A thread's fate; `file` and `line` say at which barrier it waits. */
struct thread_state {
    wait waits = wait::NOTHING;
    bool finished = false;
    const char *file = nullptr;
    int line = 0;
    unsigned mask = 0, exchanges = 0;
    uint64_t brought[2] = {}; /* by the last exchange and the one before: nobody can be two ahead of a warp mate */
    struct fiber *on = nullptr;
};

/* A place to go on at: a context at first, then where it was left. */
struct place {
    ucontext_t context;
    void *jump[5]; /* of __builtin_setjmp */
    bool has_run = false;
};

/* The compiler's own jumps: a change of contexts asks the kernel about signals each time, and the address sanitizer
 * forgets at each longjmp what is off limits on the stack. */
__attribute__((noinline, noreturn, no_sanitize("address"))) void go_on(place &at)
{
    if (at.has_run)
        __builtin_longjmp(at.jump, 1);
    setcontext(&at.context);
    std::abort();
}

/* Leaves `from`, to be gone on with later, for `to`. */
__attribute__((noinline, no_sanitize("address"))) void change(place &from, place &to)
{
    from.has_run = true;
    if (__builtin_setjmp(from.jump) == 0)
        go_on(to);
}

/* Stack of a place, and what the address sanitizer keeps of it while another runs. */
struct fiber {
    place here;
    void *stack = nullptr;
    void *fake_stack = nullptr;
    unsigned thread = 0;

    ~fiber()
    {
        if (stack)
            munmap(stack, STACK_BYTES);
    }
};

struct device {
    place scheduler;
    void *fake_stack = nullptr;
    const void *scheduler_stack = nullptr;
    size_t scheduler_bytes = 0;
    std::vector<std::unique_ptr<fiber>> fibers;
    std::vector<fiber *> idle;
    std::deque<fiber *> ready;
    fiber *running = nullptr;

    const std::function<void()> *body = nullptr;
    std::vector<thread_state> threads;
    unsigned started = 0, finished = 0;
    bool backwards = false;
    unsigned launches = 0;

    char message[256] = "";
};

device gpu;

void start_switch(void **fake_stack, const void *bottom, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#else
    (void)fake_stack, (void)bottom, (void)bytes;
#endif
}

void finish_switch(void *fake_stack, const void **bottom, size_t *bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
#else
    (void)fake_stack, (void)bottom, (void)bytes;
#endif
}

void set_thread(unsigned thread)
{
    threadIdx = uint3{thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

void to_scheduler()
{
    fiber *self = gpu.running;
    start_switch(&self->fake_stack, gpu.scheduler_stack, gpu.scheduler_bytes);
    change(self->here, gpu.scheduler);
    finish_switch(self->fake_stack, &gpu.scheduler_stack, &gpu.scheduler_bytes);
}

void to_fiber(fiber *next)
{
    gpu.running = next;
    set_thread(next->thread);
    start_switch(&gpu.fake_stack, next->stack, STACK_BYTES);
    change(gpu.scheduler, next->here);
    finish_switch(gpu.fake_stack, nullptr, nullptr);
}

void run_threads()
{
    finish_switch(nullptr, &gpu.scheduler_stack, &gpu.scheduler_bytes);
    for (;;) {
        fiber *self = gpu.running;
        while (gpu.started < gpu.threads.size()) {
            unsigned nth = gpu.started++;
            self->thread = gpu.backwards ? (unsigned)gpu.threads.size() - 1 - nth : nth;
            gpu.threads[self->thread].on = self;
            set_thread(self->thread);
            (*gpu.body)();
            gpu.threads[self->thread].finished = true;
            gpu.finished++;
        }
        gpu.idle.push_back(self);
        to_scheduler();
    }
}

fiber *new_fiber()
{
    std::unique_ptr<fiber> f = std::make_unique<fiber>();
    void *stack =
        mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || getcontext(&f->here.context) != 0) {
        std::perror("a fiber's stack");
        std::abort();
    }
    f->stack = stack;
    f->here.context.uc_stack.ss_sp = stack;
    f->here.context.uc_stack.ss_size = STACK_BYTES;
    f->here.context.uc_link = nullptr;
    makecontext(&f->here.context, run_threads, 0);
    f->here.context.uc_stack.ss_size = 0; /* else the address sanitizer allows the whole stack at each change, slowly */
    gpu.fibers.push_back(std::move(f));
    return gpu.fibers.back().get();
}

fiber *take_idle()
{
    if (gpu.idle.empty())
        return new_fiber();
    fiber *f = gpu.idle.back();
    gpu.idle.pop_back();
    return f;
}

void wake(unsigned thread)
{
    gpu.threads[thread].waits = wait::NOTHING;
    gpu.ready.push_back(gpu.threads[thread].on);
}

/* In the order of the block. */
template <typename F> void each_thread(F visit)
{
    unsigned count = (unsigned)gpu.threads.size();
    for (unsigned i = 0; i < count; i++)
        visit(gpu.backwards ? count - 1 - i : i);
}

/* All mates of a thread's mask wait for the exchange too. */
bool warp_is_complete(unsigned thread)
{
    unsigned first = thread / WARP * WARP;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (gpu.threads[thread].mask >> lane & 1)
            if (first + lane >= gpu.threads.size() || gpu.threads[first + lane].waits != wait::WARP_MATES)
                return false;
    return true;
}

bool wake_warps()
{
    std::vector<unsigned> complete;
    each_thread([&](unsigned t) {
        if (gpu.threads[t].waits == wait::WARP_MATES && warp_is_complete(t))
            complete.push_back(t);
    });
    for (unsigned t : complete)
        wake(t);
    return !complete.empty();
}

bool wake_block()
{
    const thread_state &first = gpu.threads[0];
    for (const thread_state &t : gpu.threads)
        if (t.waits != wait::BLOCK || t.file != first.file || t.line != first.line)
            return false;
    each_thread(wake);
    return true;
}

void describe_mismatch()
{
    unsigned waiting = 0, other = 0;
    for (unsigned t = 0; t < gpu.threads.size(); t++)
        if (!gpu.threads[t].finished)
            waiting = t;
    const thread_state &w = gpu.threads[waiting];
    for (unsigned t = 0; t < gpu.threads.size(); t++)
        if (gpu.threads[t].finished || gpu.threads[t].waits != w.waits || gpu.threads[t].line != w.line)
            other = t;
    const char *role = w.waits == wait::BLOCK ? "barrier" : "warp exchange";
    std::snprintf(gpu.message, sizeof gpu.message, "block %u,%u,%u: thread %u waits at the %s %s:%d, thread %u %s",
                  blockIdx.x, blockIdx.y, blockIdx.z, waiting, role, w.file ? w.file : "of line", w.line, other,
                  gpu.threads[other].finished ? "has finished" : "waits elsewhere");
}

cudaError_t run_block()
{
    gpu.threads.assign(blockDim.x * blockDim.y * blockDim.z, thread_state());
    gpu.started = gpu.finished = 0;
    while (gpu.finished < gpu.threads.size()) {
        if (!gpu.ready.empty()) {
            fiber *next = gpu.ready.front();
            gpu.ready.pop_front();
            to_fiber(next);
        } else if (gpu.started < gpu.threads.size()) {
            to_fiber(take_idle());
        } else if (!wake_warps() && !wake_block()) {
            describe_mismatch();
            gpu.idle.clear(); /* the waiting threads will never end: their fibers go */
            gpu.fibers.clear();
            return cudaErrorLaunchFailure;
        }
    }
    return cudaSuccess;
}

} // namespace

void emulated_barrier(const char *file, int line)
{
    thread_state &self = gpu.threads[gpu.running->thread];
    self.waits = wait::BLOCK;
    self.file = file;
    self.line = line;
    to_scheduler();
}

uint64_t emulated_exchange(unsigned mask, uint64_t value, unsigned lane)
{
    unsigned thread = gpu.running->thread, source = thread / WARP * WARP + lane;
    thread_state &self = gpu.threads[thread];
    unsigned slot = self.exchanges++ % 2;
    self.waits = wait::WARP_MATES;
    self.file = nullptr;
    self.line = 0;
    self.mask = mask | 1u << thread % WARP;
    self.brought[slot] = value;
    to_scheduler();
    return source < gpu.threads.size() && (mask >> lane & 1) ? gpu.threads[source].brought[slot] : value;
}

bool emulated_is_shape(dim3 grid, dim3 block)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z, blocks = (uint64_t)grid.x * grid.y * grid.z;
    return threads > 0 && threads <= MAX_THREADS && blocks > 0 && grid.y <= 65535 && grid.z <= 65535;
}

const char *emulated_failure_text()
{
    return gpu.message;
}

cudaError_t emulated_run(dim3 grid, dim3 block, const std::function<void()> &thread)
{
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    cudaError_t status = emulated_is_shape(grid, block) ? cudaSuccess : cudaErrorInvalidConfiguration;
    gridDim = grid;
    blockDim = block;
    gpu.body = &thread;
    unsigned launch = gpu.launches++;
    for (uint64_t n = 0; n < blocks && status == cudaSuccess; n++) {
        uint64_t b = launch % 2 == 1 ? blocks - 1 - n : n;
        blockIdx = uint3{(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        gpu.backwards = (b + launch / 2) % 2 == 1;
        status = run_block();
    }
    emulated_note(status);
    return status;
}

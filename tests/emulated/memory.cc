/* Owns the emulated device's memory: one region that the host may not touch, and pinned host memory. Invariant: between
 * blocks, and after the last byte of one, lies memory that the address sanitizer does not let anyone touch. */
#include "runtime.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace
{

constexpr size_t REGION_BYTES = (size_t)1 << 30, ALIGNMENT = 256, GAP = 256;

struct region {
    char *base;
    std::map<size_t, size_t> blocks; /* bytes by offset */
    size_t used = 0;
    bool protect = true;
    int open = 0;

    region()
    {
        void *memory = mmap(nullptr, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            std::perror("memory of the emulated device");
            std::abort();
        }
        base = static_cast<char *>(memory);
        madvise(base, REGION_BYTES, MADV_HUGEPAGE); /* fewer pages to open and close */
    }

    void set_access()
    {
        bool accessible = open > 0 || !protect;
        if (mprotect(base, REGION_BYTES, accessible ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
            std::perror("access to the emulated device's memory");
            std::abort();
        }
    }

    bool holds(const void *memory) const
    {
        const char *p = static_cast<const char *>(memory);
        return p >= base && p < base + REGION_BYTES;
    }

    /* All bytes lie in one block. */
    bool has(const void *memory, size_t bytes) const
    {
        if (!holds(memory))
            return false;
        size_t offset = (size_t)(static_cast<const char *>(memory) - base);
        auto next = blocks.upper_bound(offset);
        if (next == blocks.begin())
            return false;
        auto block = std::prev(next);
        return offset + bytes <= block->first + block->second;
    }
};

region &device()
{
    static region memory;
    return memory;
}

size_t rounded(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + GAP;
}

/* The first place where it fits; REGION_BYTES when there is none. */
size_t find_place(const region &r, size_t bytes)
{
    size_t place = 0;
    for (const auto &block : r.blocks) {
        if (block.first >= place + rounded(bytes))
            break;
        place = block.first + rounded(block.second);
    }
    return place + rounded(bytes) <= REGION_BYTES ? place : REGION_BYTES;
}

cudaError_t copy(void *to, const void *from, size_t bytes)
{
    std::memmove(to, from, bytes);
    return cudaSuccess;
}

} // namespace

emulated_access::emulated_access()
{
    if (device().open++ == 0)
        device().set_access();
}

emulated_access::~emulated_access()
{
    if (--device().open == 0)
        device().set_access();
}

void emulated_protect(bool on)
{
    device().protect = on;
    device().set_access();
}

size_t emulated_used()
{
    return device().used;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    RETURN_ERROR(emulated_call_outside_capture());
    region &r = device();
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    size_t place = find_place(r, bytes);
    if (r.used + bytes > emulated_get_machine().memory || place == REGION_BYTES)
        return cudaErrorMemoryAllocation;
    emulated_access access;
    r.blocks[place] = bytes;
    r.used += bytes;
    ASAN_POISON_MEMORY_REGION(r.base + place, rounded(bytes));
    ASAN_UNPOISON_MEMORY_REGION(r.base + place, bytes);
    std::memset(r.base + place, 0xFF, bytes);
    *memory = r.base + place;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    region &r = device();
    if (!memory) {
        RETURN_ERROR(emulated_call());
        return emulated_get_machine().context;
    }
    RETURN_ERROR(emulated_outside_capture());
    emulated_finish_all();
    auto block = r.holds(memory) ? r.blocks.find((size_t)(static_cast<char *>(memory) - r.base)) : r.blocks.end();
    if (block == r.blocks.end())
        return cudaErrorInvalidValue;
    ASAN_POISON_MEMORY_REGION(memory, block->second);
    r.used -= block->second;
    r.blocks.erase(block);
    if (r.blocks.empty()) /* fewer pages to open and close */
        madvise(r.base, REGION_BYTES, MADV_DONTNEED);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    RETURN_ERROR(emulated_call());
    *total = emulated_get_machine().memory;
    *free_bytes = *total - std::min(*total, device().used);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    RETURN_ERROR(emulated_call_outside_capture());
    return posix_memalign(memory, ALIGNMENT, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    emulated_finish_all();
    std::free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    const region &r = device();
    RETURN_ERROR(emulated_call());
    bool to_is_right = kind == cudaMemcpyDeviceToHost ? !r.holds(to) : r.has(to, bytes);
    bool from_is_right = kind == cudaMemcpyHostToDevice ? !r.holds(from) : r.has(from, bytes);
    if (bytes > 0 && (!to_is_right || !from_is_right))
        return cudaErrorInvalidValue;
    return emulated_enqueue(stream, [=] { return copy(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    RETURN_ERROR(emulated_call());
    if (bytes > 0 && !device().has(memory, bytes))
        return cudaErrorInvalidValue;
    return emulated_enqueue(stream, [=] {
        std::memset(memory, value, bytes);
        return cudaSuccess;
    });
}

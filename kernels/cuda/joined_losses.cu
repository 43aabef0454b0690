/* One launch for all losses of a step, their gradients and the counts of right answers, and one that adds the pictures
 * up: bit for bit what separate launches give. Owns the table of the nodes on the device. One thread. */
#include "losses.cuh"

#include <stdlib.h>

struct joined_losses {
    backend *owner;
    loss_entry *entries; /* device memory */
    double *values;      /* device memory: of all losses */
    int n, pictures;     /* pictures: of the node that has most */
    uint8_t type;
};

template <typename T> __global__ void __launch_bounds__(LOSS_THREADS, 8) joined_losses_kernel(const loss_entry *entries)
{
    const loss_entry &e = entries[blockIdx.y];
    if ((int)blockIdx.x < e.pictures)
        do_picture<T>(e, (int)blockIdx.x);
}

/* Block (list, node); the order of sum_list_kernel. */
static __global__ void __launch_bounds__(THREADS) joined_sums_kernel(const loss_entry *entries)
{
    const loss_entry &e = entries[blockIdx.y];
    const int list = (int)blockIdx.x;
    if (list >= e.lists)
        return;
    double total = 0;
    for (int i = (int)threadIdx.x; i < e.pictures; i += THREADS)
        total += e.values[(int64_t)list * e.pictures + i];
    total = block_sum(total);
    if (threadIdx.x == 0)
        e.sums[list] = e.scale * total;
}

static int launch_losses(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    enum { MOST_LISTS = 2 };
    const joined_losses *p = (const joined_losses *)k->plan;
    TRY(with_type(p->type, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(joined_losses_kernel<T>, dim3((unsigned)p->pictures, (unsigned)p->n), dim3(LOSS_THREADS), 0,
                      self->stream, p->entries);
    }));
    return launch(joined_sums_kernel, dim3(MOST_LISTS, (unsigned)p->n), dim3(THREADS), 0, self->stream, p->entries);
}

static void release_losses(void *plan)
{
    joined_losses *p = (joined_losses *)plan;
    if (p->entries)
        p->owner->ops->free(p->owner, p->entries);
    if (p->values)
        p->owner->ops->free(p->owner, p->values);
    free(p);
}

static size_t all_values_bytes(uint32_t n, kernel *const *kernels, const kernel_args *args)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += loss_values_bytes(loss_entry_of(kernels[i], &args[i]));
    return bytes;
}

static int write_entries(joined_losses *p, kernel *const *kernels, const kernel_args *args)
{
    backend *b = p->owner;
    uint32_t n = (uint32_t)p->n;
    size_t bytes = n * sizeof(loss_entry);
    loss_entry *entries = (loss_entry *)calloc(n, sizeof *entries);
    CHECK(entries, ERROR_MEMORY, "no memory to join %u losses", n);
    p->entries = (loss_entry *)b->ops->alloc(b, bytes);
    p->values = (double *)b->ops->alloc(b, all_values_bytes(n, kernels, args));
    double *values = p->values;
    for (uint32_t i = 0; i < n; i++) {
        entries[i] = loss_entry_of(kernels[i], &args[i]);
        entries[i].values = values;
        values += loss_values_bytes(entries[i]) / sizeof *values;
        p->pictures = entries[i].pictures > p->pictures ? entries[i].pictures : p->pictures;
    }
    int code = p->entries && p->values ? b->ops->write(b, p->entries, entries, bytes)
                                       : error_set(ERROR_MEMORY, "no memory on the GPU to join %u losses", n);
    free(entries);
    return code;
}

static bool are_alike(uint32_t n, kernel *const *kernels)
{
    for (uint32_t i = 1; i < n; i++)
        if (kernels[i]->request.in[0].dtype != kernels[0]->request.in[0].dtype)
            return false;
    return true;
}

int cuda_join_losses(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out)
{
    *out = NULL;
    if (!are_alike(n, kernels))
        return 0;
    kernel *k = (kernel *)calloc(1, sizeof *k);
    joined_losses *p = (joined_losses *)calloc(1, sizeof *p);
    if (!k || !p) {
        free(k);
        free(p);
        return error_set(ERROR_MEMORY, "no memory to join %u losses", n);
    }
    p->owner = self;
    p->n = (int)n;
    p->type = kernels[0]->request.in[0].dtype;
    memcpy(k->name, "losses", sizeof "losses");
    k->request.node.op = kernels[0]->request.node.op;
    k->plan = p;
    k->release_plan = release_losses;
    k->launch = launch_losses;
    int code = write_entries(p, kernels, args);
    if (code < 0) {
        cuda_kernel_release(self, k);
        return code;
    }
    *out = k;
    return 0;
}

/* One launch for all losses of a step, their gradients and the counts of right answers. The last block of a loss to be
 * done adds up its images, in the order of a launch of its own. So results are bit for bit those of separate launches.
 * Owns the table of the nodes on the device. Invariant: between launches every counter in it is zero. One thread. */
#include "losses.cuh"

#include <stdlib.h>

struct batched_loss {
    loss_entry node;
    unsigned finished; /* images */
};

struct batched_losses {
    backend *owner;
    batched_loss *table; /* device memory; behind it lie the values of all losses */
    int n, images;       /* images: of the node that has most */
    uint8_t type;
};

/* Is this the last block of the node to be done? It then sees the values of all others: thread 0 alone writes them, and
 * here orders them before its count, and the last count before what the block reads next. The count wraps to zero. */
__device__ static inline bool is_last(batched_loss &loss)
{
    __shared__ bool last;
    const unsigned most = (unsigned)loss.node.images - 1;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(&loss.finished, most) == most;
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* Block (image, node). */
template <typename T> __global__ void __launch_bounds__(LOSS_THREADS, 8) batched_losses_kernel(batched_loss *table)
{
    batched_loss &loss = table[blockIdx.y];
    if ((int)blockIdx.x >= loss.node.images)
        return;
    do_image<T>(loss.node, (int)blockIdx.x);
    if (loss.node.lists > 0 && is_last(loss))
        sum_images(loss.node);
}

static int launch_losses(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_losses *p = (const batched_losses *)k->plan;
    return with_type(p->type, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(batched_losses_kernel<T>, dim3((unsigned)p->images, (unsigned)p->n), dim3(LOSS_THREADS), 0,
                      self->stream, p->table);
    });
}

static void release_losses(void *plan)
{
    batched_losses *p = (batched_losses *)plan;
    if (p->table)
        p->owner->ops->free(p->owner, p->table);
    free(p);
}

/* Fills the host's image of the table; `values` is device memory. */
static void fill_table(batched_losses *p, batched_loss *table, double *values, kernel *const *kernels,
                       const kernel_args *args)
{
    for (int i = 0; i < p->n; i++) {
        loss_entry *e = &table[i].node;
        *e = loss_entry_of(kernels[i], &args[i]);
        e->values = values;
        values += loss_value_count(*e);
        p->images = e->images > p->images ? e->images : p->images;
    }
}

static int write_table(batched_losses *p, kernel *const *kernels, const kernel_args *args)
{
    backend *b = p->owner;
    size_t n = (size_t)p->n, bytes = n * sizeof(batched_loss), values = 0;
    for (size_t i = 0; i < n; i++)
        values += loss_value_count(loss_entry_of(kernels[i], &args[i]));
    p->table = (batched_loss *)b->ops->alloc(b, bytes + values * sizeof(double));
    CHECK(p->table, ERROR_MEMORY, "no memory on the GPU to batch %d losses", p->n);
    batched_loss *table = (batched_loss *)calloc(n, sizeof *table);
    CHECK(table, ERROR_MEMORY, "no memory to batch %d losses", p->n);
    fill_table(p, table, (double *)(p->table + n), kernels, args);
    int code = b->ops->write(b, p->table, table, bytes);
    free(table);
    return code;
}

static bool are_alike(uint32_t n, kernel *const *kernels)
{
    for (uint32_t i = 1; i < n; i++)
        if (kernels[i]->request.in[0].dtype != kernels[0]->request.in[0].dtype)
            return false;
    return true;
}

int cuda_batch_losses(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out)
{
    *out = NULL;
    if (!are_alike(n, kernels))
        return 0;
    kernel *k = (kernel *)calloc(1, sizeof *k);
    batched_losses *p = (batched_losses *)calloc(1, sizeof *p);
    if (!k || !p) {
        free(k);
        free(p);
        return error_set(ERROR_MEMORY, "no memory to batch %u losses", n);
    }
    p->owner = self;
    p->n = (int)n;
    p->type = kernels[0]->request.in[0].dtype;
    memcpy(k->name, "losses", sizeof "losses");
    k->request.node.op = kernels[0]->request.node.op;
    k->plan = p;
    k->release_plan = release_losses;
    k->launch = launch_losses;
    int code = write_table(p, kernels, args);
    if (code < 0) {
        cuda_kernel_release(self, k);
        return code;
    }
    *out = k;
    return 0;
}

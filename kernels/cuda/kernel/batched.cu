/* One launch for many small nodes of one op: the updates of a network's hundreds of tensors. Each has an entry in a
 * table on the device, written when the nodes are batched. Results are bit for bit those of separate launches, but for
 * a sum of squares over all tensors, which has an order of its own, always the same. Owns the tables. One thread. */
#include "bn_statistics.cuh"
#include "chunks.cuh"
#include "lars.cuh"
#include "reduce.cuh"
#include "sgd.cuh"

extern "C" {
#include "graph/node.h"
}

#include <stdlib.h>

enum { OPERANDS = 6 };

/* One node. Which members mean something depends on the op. */
struct batched_entry {
    void *p[OPERANDS];
    int64_t count;
    int64_t first_chunk; /* of all entries before this one */
    double a, b;
    int c;
};

struct batched_plan {
    backend *owner;
    batched_entry *entries; /* device memory */
    double *parts;          /* device memory: of a sum over all entries, or of two over each */
    int n;
    int64_t chunks;
    op_attr attr;
    uint8_t copy_type;
    const double *lr, *factor, *before;
    double *sum;
};

/* The entry that a chunk belongs to. */
__device__ static inline const batched_entry *find_entry(const batched_entry *entries, int n, int64_t chunk)
{
    int low = 0, high = n - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (entries[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle - 1;
    }
    return entries + low;
}

/* ---- sgd_update: w, v, dw, copy, EMA, lr; a: decay ---- */

/* Of SGD all entries have one learning rate, of LARS (RATE_FIRST) each its own. */
template <typename C, bool RATE_FIRST>
__global__ void __launch_bounds__(THREADS) batched_sgd_kernel(const batched_entry *entries, int n, int64_t chunks,
                                                              const double *lr, const double *factor, sgd_constants s)
{
    sgd_step step = read_step(lr, factor, 0);
    if (isnan(step.factor))
        return;
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const batched_entry *e = find_entry(entries, n, chunk);
        if (RATE_FIRST)
            step = read_step_rate_first((const double *)e->p[5], factor, e->a);
        else
            step.decay = (float)e->a;
        float *w = (float *)e->p[0], *v = (float *)e->p[1];
        const float *dw = (const float *)e->p[2];
        C *copy = (C *)e->p[3];
        float *ema = (float *)e->p[4];
        over_chunk(
            chunk - e->first_chunk, e->count,
            [&](int64_t i) {
                sgd_elements<C, ELEMENTS>(w + i, v + i, dw + i, copy ? copy + i : NULL, ema ? ema + i : NULL, step, s);
            },
            [&](int64_t i) {
                sgd_elements<C, 1>(w + i, v + i, dw + i, copy ? copy + i : NULL, ema ? ema + i : NULL, step, s);
            });
    }
}

static int64_t chunk_blocks(const cuda_backend *self, int64_t chunks)
{
    int64_t most = (int64_t)self->multiprocessors * BLOCKS_A_PROCESSOR;
    return chunks < most ? chunks : most;
}

static int launch_sgd(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    const sgd_constants s = {(float)p->attr.momentum, p->attr.nesterov, (float)(1 - p->attr.ema_decay)};
    return with_type(p->copy_type, [&](auto t) {
        using C = typename decltype(t)::type;
        return launch(p->attr.rate_first ? batched_sgd_kernel<C, true> : batched_sgd_kernel<C, false>,
                      dim3((unsigned)chunk_blocks(self, p->chunks)), dim3(THREADS), 0, self->stream, p->entries, p->n,
                      p->chunks, p->lr, p->factor, s);
    });
}

/* ---- ema_update: x, EMA; a: share ---- */

static __global__ void __launch_bounds__(THREADS)
    batched_ema_kernel(const batched_entry *entries, int n, int64_t chunks)
{
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const batched_entry *e = find_entry(entries, n, chunk);
        const float *x = (const float *)e->p[0], share = (float)e->a;
        float *ema = (float *)e->p[1];
        over_chunk(
            chunk - e->first_chunk, e->count,
            [&](int64_t i) {
                float value[ELEMENTS], mean[ELEMENTS];
                load(x + i, value);
                load(ema + i, mean);
#pragma unroll
                for (int j = 0; j < ELEMENTS; j++)
                    mean[j] = follow(mean[j], value[j], share);
                store(ema + i, mean);
            },
            [&](int64_t i) { ema[i] = follow(ema[i], x[i], share); });
    }
}

static int launch_ema(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    return launch(batched_ema_kernel, dim3((unsigned)chunk_blocks(self, p->chunks)), dim3(THREADS), 0, self->stream,
                  p->entries, p->n, p->chunks);
}

/* ---- sum_squares: dw ---- */

static constexpr int64_t SQUARE_PARTS = 1024;

static __global__ void __launch_bounds__(THREADS)
    batched_squares_kernel(const batched_entry *entries, int n, int64_t chunks, double *part)
{
    double total = 0;
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const batched_entry *e = find_entry(entries, n, chunk);
        const float *x = (const float *)e->p[0];
        over_chunk(
            chunk - e->first_chunk, e->count,
            [&](int64_t i) {
                float value[ELEMENTS], sum = 0;
                load(x + i, value);
#pragma unroll
                for (int j = 0; j < ELEMENTS; j++)
                    sum = fmaf(value[j], value[j], sum);
                total += (double)sum;
            },
            [&](int64_t i) { total += (double)(x[i] * x[i]); });
    }
    total = block_sum(total);
    if (threadIdx.x == 0)
        part[blockIdx.x] = total;
}

/* The number of parts, and so the order of the sum, does not depend on the GPU. */
static int launch_squares(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    int64_t blocks = p->chunks < SQUARE_PARTS ? p->chunks : SQUARE_PARTS;
    TRY(launch(batched_squares_kernel, dim3((unsigned)blocks), dim3(THREADS), 0, self->stream, p->entries, p->n,
               p->chunks, p->parts));
    return sum_lists(self, 1, p->parts, blocks, 1, p->before, p->sum);
}

/* ---- lars_rate: w, dw, lr, factor, rate; a: eta, b: weight decay ---- */

static __global__ void __launch_bounds__(THREADS)
    batched_lars_parts_kernel(const batched_entry *entries, int n, int64_t chunks, double *part)
{
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const batched_entry *e = find_entry(entries, n, chunk);
        add_chunk((const float *)e->p[0], (const float *)e->p[1], chunk - e->first_chunk, e->count, part + 2 * chunk);
    }
}

static __global__ void __launch_bounds__(THREADS) batched_rates_kernel(const batched_entry *entries, const double *part)
{
    const batched_entry *e = entries + blockIdx.x;
    find_rate(part + 2 * e->first_chunk, (e->count + CHUNK - 1) / CHUNK, (const double *)e->p[2],
              (const double *)e->p[3], lars_constants{e->a, e->b}, (double *)e->p[4]);
}

static int launch_rates(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    TRY(launch(batched_lars_parts_kernel, dim3((unsigned)chunk_blocks(self, p->chunks)), dim3(THREADS), 0, self->stream,
               p->entries, p->n, p->chunks, p->parts));
    return launch(batched_rates_kernel, dim3((unsigned)p->n), dim3(THREADS), 0, self->stream, p->entries, p->parts);
}

/* ---- bn_running: sums, mean, variance, shift; a: count, b: momentum ---- */

static __global__ void __launch_bounds__(THREADS) batched_running_kernel(const batched_entry *entries)
{
    const batched_entry *e = entries + blockIdx.x;
    for (int c = (int)threadIdx.x; c < (int)e->count; c += THREADS)
        update_running((const double *)e->p[0], (float *)e->p[1], (float *)e->p[2], (const float *)e->p[3],
                       (int)e->count, c, e->a, e->b);
}

static int launch_running(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    return launch(batched_running_kernel, dim3((unsigned)p->n), dim3(THREADS), 0, self->stream, p->entries);
}

/* ---- metric_add: x, sums; a: weight, c: first sum ---- */

/* One thread per sum, so that what goes to one sum is added in the order of the nodes. */
static __global__ void batched_metrics_kernel(const batched_entry *entries, int n)
{
    const int own = (int)threadIdx.x;
    double *sums = (double *)entries[0].p[1]; /* of all entries */
    double sum = 0;
    bool has_some = false;
#pragma unroll 4
    for (int k = 0; k < n; k++) {
        const int i = own - entries[k].c;
        if (i >= 0 && i < entries[k].count) {
            sum = (has_some ? sum : sums[own]) + entries[k].a * ((const double *)entries[k].p[0])[i];
            has_some = true;
        }
    }
    if (has_some)
        sums[own] = sum;
}

static int launch_metrics(const cuda_backend *self, const kernel *k, const kernel_args *)
{
    const batched_plan *p = (const batched_plan *)k->plan;
    return launch(batched_metrics_kernel, dim3(1), dim3(THREADS), 0, self->stream, p->entries, p->n);
}

/* ---- batching ---- */

static void release_batched(void *plan)
{
    batched_plan *p = (batched_plan *)plan;
    if (p->entries)
        p->owner->ops->free(p->owner, p->entries);
    if (p->parts)
        p->owner->ops->free(p->owner, p->parts);
    free(p);
}

static void describe_constants(const graph_node *node, batched_entry *e)
{
    const op_attr *attr = &node->attr;
    switch (node->op) {
    case OP_SGD_UPDATE:
        e->a = attr->decay ? attr->weight_decay : 0;
        break;
    case OP_EMA_UPDATE:
        e->a = 1 - attr->momentum;
        break;
    case OP_LARS_RATE:
        e->a = attr->eta;
        e->b = attr->weight_decay;
        break;
    case OP_BN_RUNNING:
        e->a = attr->count;
        e->b = attr->momentum;
        break;
    default:
        e->a = attr->weight;
    }
    e->c = attr->channel_offset;
}

static void describe_entry(const kernel *k, const kernel_args *args, batched_entry *e)
{
    static const int of_update[OPERANDS] = {0, 1, 2, 5, 6, 3}, of_others[OPERANDS] = {0, 1, 2, 3, 4, 5};
    const int *operands = k->request.node.op == OP_SGD_UPDATE ? of_update : of_others;
    for (int i = 0; i < OPERANDS; i++)
        e->p[i] = kernel_in_out(args, operands[i]);
    if (k->request.node.op == OP_LARS_RATE)
        e->p[4] = args->out[0];
    e->count = tensor_count(&k->request.in[k->request.node.op == OP_BN_RUNNING ? 1 : 0]);
    describe_constants(&k->request.node, e);
}

/* What all entries have in common; false where they have not. */
static bool share_step(uint32_t n, kernel *const *kernels, const kernel_args *args, batched_plan *p)
{
    p->attr = kernels[0]->request.node.attr;
    p->lr = (const double *)args[0].in[3];
    p->factor = (const double *)args[0].in[4];
    p->copy_type = DTYPE_F32;
    for (uint32_t i = 0; i < n; i++) {
        const op_attr *attr = &kernels[i]->request.node.attr;
        uint8_t type = args[i].in[5] ? kernels[i]->request.in[5].dtype : (uint8_t)DTYPE_F32;
        bool same = attr->momentum == p->attr.momentum && attr->nesterov == p->attr.nesterov &&
                    attr->rate_first == p->attr.rate_first && attr->ema_decay == p->attr.ema_decay &&
                    args[i].in[4] == p->factor;
        bool shares_rate = attr->rate_first || args[i].in[3] == p->lr;
        if (!same || !shares_rate || (type != DTYPE_F32 && p->copy_type != DTYPE_F32 && type != p->copy_type))
            return false;
        if (type != DTYPE_F32)
            p->copy_type = type;
    }
    return true;
}

/* Each adds to the sum of the one before. */
static bool share_chain(uint32_t n, const kernel_args *args, batched_plan *p)
{
    for (uint32_t i = 1; i < n; i++)
        if (args[i].in[1] != args[i - 1].out[0])
            return false;
    p->before = (const double *)args[0].in[1];
    p->sum = (double *)args[n - 1].out[0];
    return true;
}

static bool share_sums(uint32_t n, kernel *const *kernels, const kernel_args *args)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t end = kernels[i]->request.node.attr.channel_offset + tensor_count(&kernels[i]->request.in[0]);
        if (args[i].in[1] != args[0].in[1] || end > THREADS)
            return false;
    }
    return true;
}

static cuda_launch *launch_of(uint32_t n, kernel *const *kernels, const kernel_args *args, batched_plan *p)
{
    switch (kernels[0]->request.node.op) {
    case OP_SGD_UPDATE:
        return share_step(n, kernels, args, p) ? launch_sgd : NULL;
    case OP_EMA_UPDATE:
        return launch_ema;
    case OP_BN_RUNNING:
        return launch_running;
    case OP_SUM_SQUARES:
        return share_chain(n, args, p) ? launch_squares : NULL;
    case OP_LARS_RATE:
        return launch_rates;
    case OP_METRIC_ADD:
        return share_sums(n, kernels, args) ? launch_metrics : NULL;
    default:
        return NULL;
    }
}

/* What sums over entries need; other ops leave it alone. */
static size_t parts_bytes(const batched_plan *p, unsigned op)
{
    return (op == OP_LARS_RATE ? 2 * (size_t)p->chunks : (size_t)SQUARE_PARTS) * sizeof(double);
}

static int write_table(batched_plan *p, uint32_t n, kernel *const *kernels, const kernel_args *args)
{
    backend *b = p->owner;
    size_t bytes = n * sizeof(batched_entry);
    batched_entry *entries = (batched_entry *)calloc(n, sizeof *entries);
    CHECK(entries, ERROR_MEMORY, "no memory to batch %u nodes", n);
    for (uint32_t i = 0; i < n; i++) {
        describe_entry(kernels[i], &args[i], &entries[i]);
        entries[i].first_chunk = p->chunks;
        p->chunks += divide_up(entries[i].count, CHUNK);
    }
    p->n = (int)n;
    p->entries = (batched_entry *)b->ops->alloc(b, bytes);
    p->parts = (double *)b->ops->alloc(b, parts_bytes(p, kernels[0]->request.node.op));
    int code = p->entries && p->parts ? b->ops->write(b, p->entries, entries, bytes)
                                      : error_set(ERROR_MEMORY, "no memory on the GPU to batch %u nodes", n);
    free(entries);
    return code;
}

int cuda_batch_launches(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out)
{
    batched_plan wanted = {};
    if (op_is_loss(kernels[0]->request.node.op))
        return cuda_batch_losses(self, n, kernels, args, out);
    cuda_launch *start = launch_of(n, kernels, args, &wanted);
    *out = NULL;
    if (!start)
        return 0;
    kernel *k = (kernel *)calloc(1, sizeof *k);
    batched_plan *p = (batched_plan *)calloc(1, sizeof *p);
    if (!k || !p) {
        free(k);
        free(p);
        return error_set(ERROR_MEMORY, "no memory to batch %u nodes", n);
    }
    *p = wanted;
    p->owner = self;
    k->request.node.op = kernels[0]->request.node.op;
    memcpy(k->name, kernels[0]->name, sizeof k->name);
    k->plan = p;
    k->release_plan = release_batched;
    k->launch = start;
    int code = write_table(p, n, kernels, args);
    if (code < 0) {
        cuda_kernel_release(self, k);
        return code;
    }
    *out = k;
    return 0;
}

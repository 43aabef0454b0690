/* The CPU backend's table: one row for each op, the choice of instruction set, kernels' lives.
 *
 * Owns the oneDNN engine and stream. A kernel owns its oneDNN calls; launches allocate nothing of ours.
 * Threads: one thread at a time uses the backend; inside, each launch runs on `threads` OpenMP threads. */
#include "base/error.h"
#include "cpu.h"
#include "kernels/host_memory.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xmmintrin.h>

/* What an op needs: `prepare` says the workspace and may choose the launch itself. */
typedef struct {
    cpu_prepare *prepare;
    cpu_launch *launch;
} cpu_op;

static const cpu_op cpu_ops[OP_COUNT] = {
    [OP_CONV2D] = {conv2d_prepare, NULL},
    [OP_CONV2D_DGRAD] = {conv2d_dgrad_prepare, NULL},
    [OP_CONV2D_WGRAD] = {conv2d_wgrad_prepare, NULL},
    [OP_LINEAR] = {linear_prepare, NULL},
    [OP_LINEAR_DGRAD] = {linear_dgrad_prepare, NULL},
    [OP_LINEAR_WGRAD] = {linear_wgrad_prepare, NULL},
    [OP_CONCAT_LINEAR] = {concat_linear_prepare, NULL},
    [OP_CONCAT_LINEAR_DGRAD] = {concat_linear_dgrad_prepare, NULL},
    [OP_CONCAT_LINEAR_WGRAD] = {concat_linear_wgrad_prepare, NULL},
    [OP_BN_SUMS] = {bn_prepare, bn_sums_launch},
    [OP_BN_NORMALIZE] = {bn_prepare, bn_normalize_launch},
    [OP_CHANNEL_MOMENTS] = {channel_moments_prepare, NULL},
    [OP_LINEAR_BN_SUMS] = {linear_bn_sums_prepare, NULL},
    [OP_LINEAR_BN] = {linear_bn_prepare, NULL},
    [OP_LINEAR_BN_GRAD_SUMS] = {NULL, linear_bn_grad_sums_launch},
    [OP_LINEAR_BN_WGRAD] = {linear_bn_wgrad_prepare, NULL},
    [OP_LINEAR_BN_DGRAD] = {linear_bn_dgrad_prepare, NULL},
    [OP_BN_RUNNING] = {NULL, bn_running_launch},
    [OP_ZERO] = {NULL, zero_launch},
    [OP_BN_INFERENCE] = {bn_prepare, bn_inference_launch},
    [OP_BN_GRAD_SUMS] = {bn_prepare, bn_grad_sums_launch},
    [OP_BN_GRAD] = {bn_prepare, bn_grad_launch},
    [OP_BN_PARAM_GRAD] = {NULL, bn_param_grad_launch},
    [OP_ADD] = {NULL, add_launch},
    [OP_CONCAT] = {NULL, concat_launch},
    [OP_CHANNEL_SLICE] = {NULL, channel_slice_launch},
    [OP_UPSAMPLE2X] = {upsample2x_prepare, upsample2x_launch},
    [OP_UPSAMPLE2X_GRAD] = {upsample2x_prepare, upsample2x_grad_launch},
    [OP_UPSAMPLE_BN_SUMS] = {upsample_bn_prepare, upsample_bn_sums_launch},
    [OP_UPSAMPLE_BN] = {upsample_bn_prepare, upsample_bn_launch},
    [OP_UPSAMPLE_BN_INFERENCE] = {upsample_bn_prepare, upsample_bn_inference_launch},
    [OP_PATCHIFY] = {NULL, patchify_launch},
    [OP_UPSAMPLE_BN_GRAD_SUMS] = {upsample_bn_prepare, upsample_bn_grad_sums_launch},
    [OP_UPSAMPLE_BN_GRAD] = {upsample_bn_prepare, upsample_bn_grad_launch},
    [OP_UNPATCHIFY] = {NULL, unpatchify_launch},
    [OP_FOLD_FUSE_WEIGHT] = {NULL, fold_fuse_weight_launch},
    [OP_FOLD_FUSE_WEIGHT_GRAD] = {NULL, fold_fuse_weight_grad_launch},
    [OP_GLOBAL_AVERAGE_POOL] = {pool_prepare, global_average_pool_launch},
    [OP_GLOBAL_AVERAGE_POOL_GRAD] = {NULL, global_average_pool_grad_launch},
    [OP_RELU] = {NULL, relu_launch},
    [OP_RELU_GRAD] = {NULL, relu_grad_launch},
    [OP_MAX_POOL] = {max_pool_prepare, max_pool_launch},
    [OP_MAX_POOL_GRAD] = {NULL, max_pool_grad_launch},
    [OP_EXCITE] = {excite_prepare, excite_launch},
    [OP_EXCITE_GRAD] = {excite_prepare, excite_grad_launch},
    [OP_CROSS_ENTROPY] = {NULL, cross_entropy_launch},
    [OP_CROSS_ENTROPY_GRAD] = {NULL, cross_entropy_grad_launch},
    [OP_KD_LOSS] = {NULL, kd_loss_launch},
    [OP_KD_LOSS_GRAD] = {NULL, kd_loss_grad_launch},
    [OP_FEATURE_LOSS] = {NULL, feature_loss_launch},
    [OP_FEATURE_LOSS_GRAD] = {NULL, feature_loss_grad_launch},
    [OP_TOP_K] = {NULL, top_k_launch},
    [OP_IMAGES] = {NULL, images_launch},
    [OP_PAD_CHANNELS] = {NULL, pad_channels_launch},
    [OP_CONVERT] = {NULL, convert_launch},
    [OP_LOSS_SCALE] = {NULL, loss_scale_launch},
    [OP_SCALE] = {NULL, scale_launch},
    [OP_METRIC_ADD] = {NULL, metric_add_launch},
    [OP_METRIC_WATCH] = {NULL, metric_watch_launch},
    [OP_SUM_SQUARES] = {sum_squares_prepare, sum_squares_launch},
    [OP_COUNT_NOT_FINITE] = {sum_squares_prepare, count_not_finite_launch},
    [OP_CLIP_FACTOR] = {NULL, clip_factor_launch},
    [OP_EMA_UPDATE] = {NULL, ema_update_launch},
    [OP_LARS_RATE] = {sum_squares_prepare, lars_rate_launch},
    [OP_SGD_UPDATE] = {NULL, sgd_update_launch},
};

static const char *const op_names[OP_COUNT] = {
#define OP(id, name, ...) [id] = name,
#include "graph/ops.def"
#undef OP
};

static void release(backend *base, kernel *k)
{
    (void)base;
    if (!k)
        return;
    for (int i = 0; i < CPU_MAX_CALLS; i++)
        onednn_call_destroy(&k->call[i]);
    free(k);
}

/* Only vectors (sums, losses, the learning rate) may be float64 here. */
static bool is_supported(const tensor_desc *t)
{
    return t->dtype != DTYPE_F64 || t->dim[0] * t->dim[1] <= 1;
}

static int check_dtypes(const kernel_request *request, const char *name)
{
    for (int i = 0; i < NODE_MAX_IN; i++)
        CHECK(is_supported(&request->in[i]), ERROR_KERNEL, "%s: input %d is float64, the CPU backend is float32", name,
              i);
    for (int i = 0; i < NODE_MAX_OUT; i++)
        CHECK(is_supported(&request->out[i]), ERROR_KERNEL, "%s: output %d is float64, the CPU backend is float32",
              name, i);
    return 0;
}

static int prepare(backend *base, const kernel_request *request, kernel **out, size_t *workspace_bytes)
{
    const cpu_backend *self = (const cpu_backend *)base;
    unsigned op = request->node.op;
    const char *label = request->label ? request->label : "?";
    CHECK(op < OP_COUNT && (cpu_ops[op].prepare || cpu_ops[op].launch), ERROR_KERNEL,
          "%s: the CPU backend has no kernel for %s", label, op < OP_COUNT ? op_names[op] : "this op");
    TRY(check_dtypes(request, op_names[op]));
    kernel *k = calloc(1, sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a kernel");
    omp_set_num_threads(self->threads); /* oneDNN asks OpenMP, whose setting is one for each calling thread */
    k->request = *request;
    k->request.label = NULL; /* the caller's text may not outlive the call */
    k->launch = cpu_ops[op].launch;
    *workspace_bytes = 0;
    int code = cpu_ops[op].prepare ? cpu_ops[op].prepare(self, k, workspace_bytes) : 0;
    if (code < 0) {
        release(base, k);
        return error_prefix(code, "%s (%s)", label, op_names[op]);
    }
    *out = k;
    return 0;
}

static int launch(backend *base, kernel *k, const kernel_args *args)
{
    const cpu_backend *self = (const cpu_backend *)base;
    omp_set_num_threads(self->threads);
    return k->launch(self, k, args);
}

/* Large blocks are walked end to end: huge pages where the system grants them. */
static void *allocate(backend *base, size_t bytes)
{
    (void)base;
    enum { LINE = 64, HUGE_PAGE = 2 << 20 };
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : LINE, rounded = (bytes + unit - 1) / unit * unit;
    if (rounded < bytes)
        return NULL;
    void *memory = aligned_alloc(unit, rounded ? rounded : unit);
    if (memory && unit == HUGE_PAGE)
        madvise(memory, rounded, MADV_HUGEPAGE); /* only advice: a refusal changes nothing */
    return memory;
}

static void free_memory(backend *base, void *memory)
{
    (void)base;
    free(memory);
}

static const char *describe(backend *base)
{
    return ((cpu_backend *)base)->description;
}

/* Denormals are treated as zero: they matter to no result, and some processors take a hundred times as long. */
static void flush_denormals(int threads)
{
    enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };
#pragma omp parallel num_threads(threads)
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
}

static void close_backend(backend *base)
{
    cpu_backend *self = (cpu_backend *)base;
    _mm_setcsr(self->saved_mxcsr);
    if (self->stream)
        dnnl_stream_destroy(self->stream);
    if (self->engine)
        dnnl_engine_destroy(self->engine);
    free(self);
}

static const backend_ops cpu_backend_ops = {
    .name = "cpu",
    .real = DTYPE_F32,
    .activation = DTYPE_F32,
    .op_error = 1e-5,
    .host_memory = true,
    .prepare = prepare,
    .launch = launch,
    .release = release,
    .alloc = allocate,
    .free = free_memory,
    .write = host_memory_write,
    .read = host_memory_read,
    .copy = host_memory_copy,
    .zero = host_memory_zero,
    .synchronize = host_memory_synchronize,
    .description = describe,
    .close = close_backend,
};

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static int choose_loops(cpu_isa isa, const cpu_loops **out)
{
    CHECK(isa != CPU_ISA_AVX512 || has_avx512(), ERROR_SETTINGS, "this processor has no AVX-512 (F, BW, DQ, VL)");
    CHECK(isa != CPU_ISA_AVX2 || has_avx2(), ERROR_SETTINGS, "this processor has no AVX2 with FMA");
    if (isa == CPU_ISA_AVX512 || (isa == CPU_ISA_AUTO && has_avx512()))
        *out = &cpu_loops_avx512;
    else if (isa == CPU_ISA_AVX2 || (isa == CPU_ISA_AUTO && has_avx2()))
        *out = &cpu_loops_avx2;
    else
        *out = &cpu_loops_baseline;
    return 0;
}

/* oneDNN takes this only before its first use in a process; later the description shows what it kept. */
static void limit_onednn(cpu_isa isa)
{
    if (isa == CPU_ISA_AVX2)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    else if (isa == CPU_ISA_BASELINE)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
}

static size_t last_cache_bytes(void)
{
    enum { USUAL = 32 << 20 };
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? (size_t)bytes : USUAL;
}

int backend_cpu_open(backend **out, int threads, cpu_isa isa)
{
    const cpu_loops *loops = NULL;
    CHECK(threads >= 1, ERROR_SETTINGS, "the CPU backend needs at least one thread, not %d", threads);
    TRY(choose_loops(isa, &loops));
    cpu_backend *self = calloc(1, sizeof *self);
    CHECK(self, ERROR_MEMORY, "no memory for the CPU backend");
    self->base.ops = &cpu_backend_ops;
    self->loops = loops;
    self->threads = threads;
    self->last_cache = last_cache_bytes();
    self->saved_mxcsr = _mm_getcsr();
    limit_onednn(isa);
    omp_set_dynamic(0); /* oneDNN counts on as many threads as it asks for, whatever OMP_DYNAMIC says */
    omp_set_num_threads(threads);
    flush_denormals(threads);
    int code = onednn_check(dnnl_engine_create(&self->engine, dnnl_cpu, 0), "CPU engine");
    if (code == 0)
        code = onednn_check(dnnl_stream_create(&self->stream, self->engine, dnnl_stream_default_flags), "stream");
    if (code < 0) {
        close_backend(&self->base);
        return code;
    }
    const dnnl_version_t *version = dnnl_version();
    snprintf(self->description, sizeof self->description,
             "cpu: float32, oneDNN %d.%d.%d (%s), native loops %s, %d thread%s", version->major, version->minor,
             version->patch, onednn_isa_name(), loops->name, threads, threads == 1 ? "" : "s");
    *out = &self->base;
    return 0;
}

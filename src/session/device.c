/* Owns the choice of device. One thread. */
#include "session/device.h"
#include "base/error.h"

#ifdef TESKD_HAVE_CUDA
#include "kernels/cuda/device/cuda_devices.h"
#include "kernels/cuda/device/cuda_open.h"
#endif

static cpu_isa chosen_isa(const settings *config)
{
    static const cpu_isa isas[] = {[ISA_AUTO] = CPU_ISA_AUTO,
                                   [ISA_BASELINE] = CPU_ISA_BASELINE,
                                   [ISA_AVX2] = CPU_ISA_AVX2,
                                   [ISA_AVX512] = CPU_ISA_AVX512};
    return isas[config->run.isa];
}

static int open_cpu(backend **out, const settings *config, int threads)
{
    int status = backend_cpu_open(out, threads, chosen_isa(config));
    return status == ERROR_SETTINGS ? error_prefix(status, "run.isa") : status;
}

#ifdef TESKD_HAVE_CUDA
static int open_cuda(backend **out, const settings *config, comm *ranks)
{
    static const cuda_precision precisions[] = {[PRECISION_AUTO] = CUDA_FP16,
                                                [PRECISION_FP16] = CUDA_FP16,
                                                [PRECISION_BF16] = CUDA_BF16,
                                                [PRECISION_TF32] = CUDA_TF32,
                                                [PRECISION_FP32] = CUDA_FP32};
    return backend_cuda_open(out, &(cuda_options){.precision = precisions[config->run.precision],
                                                  .deterministic = config->run.deterministic,
                                                  .tune = true,
                                                  .local_rank = comm_describe(ranks)->local_rank,
                                                  .plan_cache = config->run.plan_cache});
}

static bool sees_gpus(void)
{
    return cuda_device_count() != 0;
}

#else
static int open_cuda(backend **out, const settings *config, comm *ranks)
{
    (void)out, (void)config, (void)ranks;
    return error_set(ERROR_SETTINGS, "run.device: this program was built without GPU support");
}

static bool sees_gpus(void)
{
    return false;
}
#endif

static bool needs_gpu(const settings *config)
{
    return config->run.precision != PRECISION_AUTO && config->run.precision != PRECISION_FP32;
}

/* A GPU for every rank, or the CPU for all. */
static int open_best(backend **out, const settings *config, comm *ranks, int threads, logger *log)
{
    int64_t seen = sees_gpus();
    TRY(comm_all_reduce(ranks, &seen, 1, COMM_I64));
    int status = open_cuda(out, config, ranks), agreed = comm_agree(ranks, status);
    if (agreed == 0)
        return 0;
    if (status == 0)
        (*out)->ops->close(*out);
    if (agreed == ERROR_COMM)
        return agreed;
    if (needs_gpu(config))
        return error_prefix(ERROR_SETTINGS, "run.precision: this one needs a GPU; auto and fp32 are allowed without");
    if (seen > 0)
        log_info(log, "the GPUs are left alone: %s", error_message());
    return open_cpu(out, config, threads);
}

int device_open(backend **out, const settings *config, comm *ranks, int threads, logger *log)
{
    switch (config->run.device) {
    case DEVICE_REFERENCE:
        return backend_reference_open(out, threads);
    case DEVICE_CPU:
        return open_cpu(out, config, threads);
    case DEVICE_CUDA:
        return open_cuda(out, config, ranks);
    default:
        return open_best(out, config, ranks, threads, log);
    }
}

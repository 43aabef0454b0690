/* Owns the choice of how ranks add up. One thread. */
#include "session/reduction.h"
#include "base/error.h"
#include "run/host_reduction.h"

#ifdef TESKD_HAVE_NCCL
#include "dist/nccl_reduction.h"
#include "kernels/cuda/device/cuda_open.h"

static void warn_of_sharing(const gpu_sharing *shared, const comm *ranks, logger *log)
{
    if (comm_describe(ranks)->rank == 0)
        log_warning(log,
                    "%d ranks on %s share %d GPU%s: they take turns, and their sums go slowly through host memory, as "
                    "NCCL refuses this; start %d rank%s there (mpirun -np), or show them more GPUs "
                    "(CUDA_VISIBLE_DEVICES)",
                    shared->ranks, shared->host, shared->gpus, shared->gpus == 1 ? "" : "s", shared->gpus,
                    shared->gpus == 1 ? "" : "s");
}

static int open_nccl(reduction **out, const settings *config, backend *device, comm *ranks, logger *log)
{
    gpu_sharing shared;
    TRY(nccl_find_sharing(ranks, device->ops->pci_address(device), &shared));
    if (shared.ranks > 0) {
        CHECK(
            config->run.reduction == REDUCTION_AUTO, ERROR_SETTINGS,
            "run.reduction: nccl needs a GPU for every rank, and %d ranks on %s share %d; start as many ranks as GPUs, "
            "or take mpi for debugging",
            shared.ranks, shared.host, shared.gpus);
        warn_of_sharing(&shared, ranks, log);
        return host_reduction_open(out, ranks, device);
    }
    const nccl_options options = {comm_patience(ranks), config->run.deterministic};
    int status = nccl_reduction_open(out, cuda_backend_libraries(device), ranks, cuda_backend_stream(device), &options);
    return status < 0 ? error_prefix(status, "NCCL (run.reduction = mpi does without)") : 0;
}
#else
static int open_nccl(reduction **out, const settings *config, backend *device, comm *ranks, logger *log)
{
    CHECK(config->run.reduction == REDUCTION_AUTO, ERROR_SETTINGS,
          "run.reduction: this program was built without NCCL");
    log_info(log, "built without NCCL: sums go through host memory (run.reduction = mpi)");
    return host_reduction_open(out, ranks, device);
}
#endif

int reduction_open(reduction **out, const settings *config, backend *device, comm *ranks, logger *log)
{
    int wanted = (int)config->run.reduction;
    bool alone = comm_describe(ranks)->size == 1;
    *out = NULL;
    CHECK(wanted != REDUCTION_NCCL || !device->ops->host_memory, ERROR_SETTINGS,
          "run.reduction: nccl adds up between GPUs, but run.device is %s", device->ops->name);
    if (alone && wanted != REDUCTION_NCCL)
        return 0;
    if (device->ops->host_memory || wanted == REDUCTION_MPI)
        return host_reduction_open(out, ranks, device);
    return open_nccl(out, config, device, ranks, log);
}

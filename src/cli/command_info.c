/* Owns `teskd info`: what this build and machine have. */
#include "base/build_id.h"
#include "base/error.h"
#include "cli/commands.h"
#include "model/network.h"
#include "session/device.h"
#include "session/threads.h"

#ifdef TESKD_HAVE_CUDA
#include "kernels/cuda/device/cuda_devices.h"
#endif

static void print_device(logger *log, const char *name, int status, backend *const *opened)
{
    backend *device = *opened;
    if (status < 0) {
        log_info(log, "  %-10s not usable: %s", name, error_message());
        return;
    }
    log_info(log, "  %-10s %s", name, device->ops->description(device));
    device->ops->close(device);
}

#ifdef TESKD_HAVE_CUDA
static void print_gpus(logger *log)
{
    char text[256];
    cuda_libraries_found found;
    int count = cuda_device_count();
    if (count <= 0)
        log_info(log, "  %-10s not usable: %s", "cuda", error_message());
    for (int i = 0; i < count; i++)
        log_info(log, "  %-10s GPU %d: %s", "cuda", i,
                 cuda_device_describe(i, text, sizeof text) < 0 ? error_message() : text);
    cuda_versions(text, sizeof text);
    log_info(log, "  %-10s %s", "", text);
    if (cuda_libraries_find(&found) < 0)
        return;
    log_info(log, "  %-10s %s", "", found.versions);
    for (int i = 0; i < found.n_problems; i++)
        log_info(log, "  %-10s %s", "", found.problem[i]);
}
#else
static void print_gpus(logger *log)
{
    log_info(log, "  %-10s not built in: the CUDA toolkit or cuDNN's headers were not found, or TESKD_CUDA is off",
             "cuda");
}
#endif

static void print_cores(logger *log, int threads)
{
    char cores[THREADS_TEXT_BYTES], variables[THREADS_TEXT_BYTES];
    threads_cores_text(cores);
    threads_openmp_text(variables);
    log_info(log, "cores: this rank may use %s, and uses %d thread%s", cores, threads, threads == 1 ? "" : "s");
    if (variables[0])
        log_info(log, "OpenMP: %s", variables);
}

static int run(const options *o, logger *log, comm *ranks)
{
    const comm_info *info = comm_describe(ranks);
    int threads;
    char program[PROGRAM_TEXT_BYTES];
    backend *device = NULL;
    if (o->settings_table) {
        if (info->rank == 0)
            settings_markdown(stdout);
        return 0;
    }
    TRY(threads_choose(&o->config, ranks, &threads));
    program_text(program);
    log_info(log, "teskd %s", program);
    log_info(log, "ranks: %d, %d on %s; %s", info->size, info->local_size, info->host, info->library);
    print_cores(log, threads);
    log_info(log, "devices:");
    print_device(log, "cpu", backend_cpu_open(&device, threads, CPU_ISA_AUTO), &device);
    print_device(log, "reference", backend_reference_open(&device, threads), &device);
    print_gpus(log);
    log_info(log, "networks:");
    for (int i = 0; network_at(i); i++)
        log_info(log, "  %s", network_at(i)->name);
    return 0;
}

const command command_info = {
    .name = "info",
    .summary = "print devices, libraries, ranks and networks",
    .usage = "",
    .options = OPTION_SETTINGS,
    .uses_settings = false,
    .run = run,
};

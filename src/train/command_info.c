/* Owns `teskd info`: what this build and machine have. */
#include "base/error.h"
#include "model/network.h"
#include "train/commands.h"
#include "train/device.h"

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

static int run(const options *o, logger *log, comm *ranks)
{
    const comm_info *info = comm_describe(ranks);
    int threads;
    backend *device = NULL;
    TRY(device_threads(&o->config, ranks, &threads));
    log_info(log, "teskd %s", TESKD_VERSION);
    log_info(log, "ranks: %d, %d on %s; %s", info->size, info->local_size, info->host, info->library);
    log_info(log, "cores: this rank may use %d, and uses %d threads", device_cores(), threads);
    log_info(log, "devices:");
    print_device(log, "cpu", backend_cpu_open(&device, threads, CPU_ISA_AUTO), &device);
    print_device(log, "reference", backend_reference_open(&device, threads), &device);
    log_info(log, "networks:");
    for (int i = 0; network_at(i); i++)
        log_info(log, "  %s", network_at(i)->name);
    return 0;
}

const command command_info = {
    .name = "info",
    .summary = "print devices, libraries, ranks and networks",
    .usage = "",
    .options = 0,
    .uses_settings = false,
    .run = run,
};

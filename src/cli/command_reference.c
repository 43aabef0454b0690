/* Owns `teskd reference`: this program against results computed elsewhere. */
#include "base/error.h"
#include "cli/commands.h"
#include "io/file/reference_file.h"
#include "session/configure.h"
#include "session/device.h"
#include "session/threads.h"
#include "tools/reference.h"
#include "tools/reference_images.h"

#include <string.h>

static bool is_table(const char *path)
{
    const char *end = strrchr(path, '.');
    return end && strcmp(end, ".csv") == 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    backend *device;
    int threads;
    CHECK(o->n_arguments == 1, ERROR_USAGE, "teskd reference takes one FILE.h5 or FILE.csv");
    CHECK(comm_describe(ranks)->size == 1, ERROR_USAGE, "teskd reference runs on one rank");
    if (is_table(o->arguments[0])) {
        CHECK(o->root, ERROR_USAGE, "%s: --root must say in which folder its images are", o->arguments[0]);
        return compare_images(o->arguments[0], o->root, stdout);
    }
    CHECK(!o->root, ERROR_USAGE, "--root is for a FILE.csv");
    TRY(reference_try(o->arguments[0])); /* while there is no thread nor device that a child could disturb */
    TRY(threads_choose(&o->config, ranks, &threads));
    TRY(device_open(&device, &o->config, ranks, threads, log));
    const compare_options wanted = {.rewrites = configure_rewrites(&o->config), .capture = o->config.run.capture};
    int status = compare_with_reference(device, o->arguments[0], &wanted, stdout);
    device->ops->close(device);
    return status;
}

const command command_reference = {
    .name = "reference",
    .summary = "compare with a file of reference results",
    .usage = "FILE.h5|FILE.csv",
    .options = OPTION_DEVICE | OPTION_ROOT | OPTION_ARGUMENTS,
    .uses_settings = true,
    .run = run,
};

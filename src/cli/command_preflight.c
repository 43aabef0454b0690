/* Owns `teskd preflight`: are the hosts of a run alike, whole and fast enough? */
#include "base/error.h"
#include "cli/commands.h"
#include "tools/preflight/preflight.h"

static int run(const options *o, logger *log, comm *ranks)
{
    enum { MOST_SECONDS = 3600 };
    CHECK(o->patience != 0 && o->patience <= MOST_SECONDS, ERROR_USAGE, "--patience: expected 1 to %d", MOST_SECONDS);
    TRY(comm_refuse_single(ranks));
    const preflight_options wanted = {.json = o->json,
                                      .patience = o->patience > 0 ? (double)o->patience : PREFLIGHT_PATIENCE_SECONDS};
    return preflight_run(&o->config, &wanted, log, ranks);
}

const command command_preflight = {
    .name = "preflight",
    .summary = "check the hosts of a training before it starts",
    .usage = "",
    .options = OPTION_JSON | OPTION_PREFLIGHT | OPTION_DEVICE,
    .uses_settings = true,
    .run = run,
};

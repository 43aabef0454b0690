/* Owns `teskd bench`: the time of training steps on synthetic data. */
#include "base/error.h"
#include "cli/commands.h"
#include "tools/bench.h"

enum { HOST_BATCHES = 4 }; /* more than the host's caches hold */

static int run(const options *o, logger *log, comm *ranks)
{
    settings config = o->config;
    bench_options wanted = {.steps = o->steps > 0 ? (int)o->steps : 10, .json = o->json, .per_node = o->per_node};
    CHECK(o->steps != 0 && o->steps <= 1000000, ERROR_USAGE, "--steps: expected 1 to 1000000");
    const data_source *source;
    TRY(comm_agree(ranks, source_find(&source, config.data.kind)));
    if (source->wants) /* files are not what is measured */
        snprintf(config.data.kind, sizeof config.data.kind, "synthetic");
    bool from_host = !source->wants && source->placement == PLACEMENT_HOST;
    config.data.train_images = config.train.batch * (from_host ? HOST_BATCHES : 1); /* no incomplete one */
    config.train.accumulate = 1;
    if (config.model.classes == 0)
        config.model.classes = 100;
    session e;
    int status = session_open(&e, &config, log, ranks, DATA_TRAIN | WILL_TRAIN);
    if (status == 0)
        status = bench_training(&e, &wanted);
    return session_end(&e, status);
}

const command command_bench = {
    .name = "bench",
    .summary = "time training steps on synthetic data",
    .usage = "",
    .options = OPTION_BENCH | OPTION_JSON | OPTION_DEVICE,
    .uses_settings = true,
    .run = run,
};

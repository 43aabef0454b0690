/* Owns `teskd data bench`: how fast the images of a data set become batches. */
#include "tools/data_bench.h"
#include "base/error.h"
#include "cli/data_commands.h"

static const long long default_images_per_second = 8000;

static int run(const options *o, logger *log, comm *ranks)
{
    const long long wanted = o->images_per_second < 0 ? default_images_per_second : o->images_per_second;
    CHECK(comm_describe(ranks)->size == 1, ERROR_USAGE,
          "teskd data bench takes one rank; it starts as many threads as there are cores");
    CHECK(wanted >= 1 && wanted <= 1000000000, ERROR_USAGE, "--images-per-second: expected 1 to 1000000000");
    return bench_data(&o->config, &(data_bench_options){.images_per_second = wanted, .json = o->json}, log);
}

const data_command data_bench = {
    .name = "bench",
    .usage = "",
    .summary = "time how fast images are read, decoded, scaled and handed out",
    .options = OPTION_DATA_BENCH | OPTION_JSON | OPTION_ARGUMENTS,
    .run = run,
};

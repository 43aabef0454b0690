/* Owns `teskd train`, also what `teskd --config F` does. */
#include "base/error.h"
#include "cli/commands.h"
#include "session/configure.h"
#include "session/launch.h"
#include "tools/dry_run.h"
#include "train/report.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_settings(const options *o, comm *ranks)
{
    image_options images;
    step_options step = {0};
    TRY(comm_agree(ranks, configure(&o->config, &images, &step))); /* what makes no sense is refused */
    if (comm_describe(ranks)->rank != 0)
        return 0;
    char *text = settings_to_text(&o->config);
    CHECK(text, ERROR_MEMORY, "no memory for the settings");
    fputs(text, stdout);
    free(text);
    return 0;
}

static int run_training(session *e, output_folder *output, const options *o)
{
    e->plan_only = o->dry_run;
    e->other_data = o->other_data;
    if (o->dump_graph)
        TRY(comm_agree(e->ranks, session_check_target(e, "--dump-graph", o->dump_graph)));
    TRY(session_build_training(e));
    TRY(session_build_evaluation(e));
    if (o->dump_graph)
        TRY(comm_agree(e->ranks, dry_run_dump_graph(e, o->dump_graph)));
    if (o->dry_run)
        return dry_run(e);
    report_banner(e);
    TRY(launch_warn(e));
    TRY(session_bind(e));
    return train(e, output);
}

static int check_options(const options *o)
{
    bool is_auto = o->resume && strcmp(o->resume, "auto") == 0;
    CHECK(!is_auto || !o->overwrite, ERROR_USAGE, "--overwrite would remove what --resume auto is to go on from");
    return 0;
}

/* From here on a rank that hangs ends the run. */
static void watch_ranks(const settings *config, comm *ranks)
{
    const phase_limits limits = {.start = config->dist.timeout_start,
                                 .step = config->dist.timeout_step,
                                 .checkpoint = config->dist.timeout_checkpoint};
    comm_watch(ranks, &limits, config->dist.timeout_silence);
    comm_enter(ranks, PHASE_START);
}

static int run(const options *o, logger *log, comm *ranks)
{
    session e;
    output_folder *output = NULL;
    const output_options wanted = {
        .folder = o->config.output.dir, .resume = o->resume, .overwrite = o->overwrite, .log = log, .ranks = ranks};
    TRY(check_options(o));
    if (o->print_config)
        return print_settings(o, ranks);
    if (!o->dry_run)
        TRY(comm_refuse_single(ranks));
    if (!o->dry_run)
        TRY(output_folder_open(&output, &wanted));
    watch_ranks(&o->config, ranks);
    bool needs_data = !o->dry_run || o->config.data.path[0];
    int status =
        session_open(&e, &o->config, log, ranks, (needs_data ? DATA_TRAIN | DATA_TEST : DATA_NONE) | WILL_TRAIN);
    if (status == 0)
        status = run_training(&e, output, o);
    output_folder_close(&output);
    return session_end(&e, status);
}

const command command_train = {
    .name = "train",
    .summary = "train a network",
    .usage = "",
    .options = OPTION_RESUME | OPTION_OTHER_DATA | OPTION_OVERWRITE | OPTION_DRY_RUN | OPTION_PRINT_CONFIG |
               OPTION_DUMP_GRAPH | OPTION_DEVICE,
    .uses_settings = true,
    .stops = true,
    .run = run,
};

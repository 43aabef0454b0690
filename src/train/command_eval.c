/* Owns `teskd eval`: a checkpoint on the test pictures. */
#include "base/error.h"
#include "train/checkpoint.h"
#include "train/commands.h"
#include "train/evaluate.h"
#include "train/report.h"

/* The network is the checkpoint's; data and device are the command line's, or else the checkpoint's. */
static int merge_settings(const options *o, comm *ranks, settings *config)
{
    settings saved;
    TRY(checkpoint_settings(ranks, o->checkpoint, &saved));
    *config = o->config;
    config->model = saved.model;
    config->loss = saved.loss;
    if (!o->config_path && !config->data.path[0])
        config->data = saved.data;
    if (o->teacher_only)
        config->model.method = METHOD_PLAIN;
    return 0;
}

static int run_evaluation(experiment *e, const char *checkpoint)
{
    loader *batches = NULL;
    metrics mean;
    TRY(experiment_build_evaluation(e));
    TRY(experiment_bind(e));
    TRY(checkpoint_load_weights(e, checkpoint));
    TRY(experiment_open_loader(e, false, &batches));
    int status = evaluate(e, batches, &mean);
    if (status == 0) {
        log_info(e->log, "%s", checkpoint);
        report_evaluation(e, &mean);
    }
    loader_close(&batches);
    return status;
}

static int run(const options *o, logger *log, comm *ranks)
{
    settings config;
    experiment e;
    CHECK(o->checkpoint, ERROR_USAGE, "teskd eval needs --checkpoint FILE");
    TRY(merge_settings(o, ranks, &config));
    int status = experiment_open(&e, &config, log, ranks, DATA_TEST);
    if (status == 0)
        status = run_evaluation(&e, o->checkpoint);
    experiment_close(&e);
    return status;
}

const command command_eval = {
    .name = "eval",
    .summary = "evaluate a checkpoint on the test pictures",
    .usage = "",
    .options = OPTION_CHECKPOINT | OPTION_TEACHER_ONLY | OPTION_DEVICE,
    .uses_settings = true,
    .run = run,
};

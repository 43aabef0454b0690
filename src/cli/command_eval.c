/* Owns `teskd eval`: a checkpoint on the test images. */
#include "base/error.h"
#include "cli/commands.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/report.h"

#include <string.h>

/* The data are the checkpoint's, changed by the command line. Limits belong to the data that they were set for. */
static int choose_data(const options *o, const settings *saved, settings *config)
{
    settings base;
    settings_default(&base);
    base.data = saved->data;
    base.train.seed = saved->train.seed; /* synthetic images depend on it */
    *config = base;
    TRY(options_apply(o, config));
    bool same = strcmp(config->data.kind, saved->data.kind) == 0 && strcmp(config->data.path, saved->data.path) == 0;
    if (same)
        return 0;
    base.data.train_images = base.data.test_images = 0;
    *config = base;
    return options_apply(o, config);
}

/* A network may have more classes than the data it was trained on, but other data have to have its own number. */
static int check_classes(const char *checkpoint, const settings *saved, const settings *config)
{
    const data_source *source;
    source_facts facts;
    TRY(source_find(&source, config->data.kind));
    TRY(source_describe(&facts, source, config->data.path));
    bool same = strcmp(config->data.kind, saved->data.kind) == 0;
    CHECK(same || facts.classes == 0 || facts.classes == saved->model.classes, ERROR_SETTINGS,
          "%s is a network of %lld classes, but the data (%s) have %d", checkpoint, (long long)saved->model.classes,
          source->title, facts.classes);
    return 0;
}

/* The network and its losses are the checkpoint's; all else the command line's. */
static int merge_settings(const options *o, const settings *saved, settings *config)
{
    TRY(choose_data(o, saved, config));
    TRY(check_classes(o->checkpoint, saved, config));
    config->model = saved->model;
    config->loss = saved->loss;
    if (o->teacher_only)
        config->model.method = METHOD_PLAIN;
    return 0;
}

static int evaluate_checkpoint(session *e, const options *o, predictions *out)
{
    feed *batches = NULL;
    metrics mean;
    TRY(feed_open(&batches, e, false));
    int status = evaluate_images(e, batches, out, &mean);
    if (session_closes(e, status))
        feed_close(&batches);
    TRY(status);
    log_info(e->log, "%s%s%s", o->checkpoint, e->config.eval.ema ? ", averaged weights" : "",
             e->config.eval.flip ? ", images and their mirror images" : "");
    report_evaluation(e, &mean);
    if (o->per_class)
        TRY(predictions_by_class(out, e->log));
    if (o->predictions) {
        TRY(predictions_commit(out));
        log_info(e->log, "predictions %s", o->predictions);
    }
    return 0;
}

static int run_evaluation(session *e, const options *o)
{
    predictions *out = NULL;
    if (o->predictions)
        TRY(comm_agree(e->ranks, session_check_target(e, "--predictions", o->predictions)));
    TRY(session_build_evaluation(e));
    TRY(session_bind(e));
    TRY(checkpoint_load_weights(e, o->checkpoint));
    if (o->predictions || o->per_class)
        TRY(predictions_open(&out, e, o->predictions, o->logits));
    int status = evaluate_checkpoint(e, o, out);
    predictions_close(&out);
    return status;
}

static int check_options(const options *o)
{
    CHECK(o->checkpoint, ERROR_USAGE, "teskd eval needs --checkpoint FILE");
    CHECK(!o->logits || o->predictions, ERROR_USAGE, "--logits needs --predictions FILE.csv");
    CHECK(!o->logits || !o->config.eval.flip, ERROR_USAGE,
          "--logits: with eval.flip each image has two sets of logits, and its probabilities are those of neither");
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    settings saved, config;
    session e;
    TRY(check_options(o));
    TRY(checkpoint_settings(ranks, o->checkpoint, &saved));
    TRY(comm_agree(ranks, merge_settings(o, &saved, &config)));
    int status = session_open(&e, &config, log, ranks, DATA_TEST);
    if (status == 0)
        status = run_evaluation(&e, o);
    return session_end(&e, status);
}

const command command_eval = {
    .name = "eval",
    .summary = "evaluate a checkpoint on the test images",
    .usage = "",
    .options =
        OPTION_CHECKPOINT | OPTION_TEACHER_ONLY | OPTION_PREDICTIONS | OPTION_LOGITS | OPTION_PER_CLASS | OPTION_DEVICE,
    .uses_settings = true,
    .run = run,
};

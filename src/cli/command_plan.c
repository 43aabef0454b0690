/* Owns `teskd plan`: the options of a cluster that is not here. */
#include "base/error.h"
#include "cli/commands.h"
#include "tools/plan/plan.h"

enum { NODES_MOST = 16384, GPUS_MOST = 64, IMAGES_MOST = 65536, ADAPTERS_MOST = 64 };
static const double rate_most = 1e6;

static int take_count(const char *name, long long given, long long most, int64_t *value)
{
    if (given < 0)
        return 0;
    CHECK(given >= 1 && given <= most, ERROR_USAGE, "--%s %lld: expected 1 to %lld", name, given, most);
    *value = given;
    return 0;
}

static int take_number(const char *name, double given, double least, double most, double *value)
{
    if (given < 0)
        return 0;
    CHECK(given >= least && given <= most, ERROR_USAGE, "--%s %g: expected %g to %g", name, given, least, most);
    *value = given;
    return 0;
}

static int take_cluster(const options *o, plan_options *p)
{
    TRY(take_count("nodes", o->nodes, NODES_MOST, &p->nodes));
    TRY(take_count("gpus", o->gpus, GPUS_MOST, &p->gpus));
    TRY(take_count("adapters", o->adapters, ADAPTERS_MOST, &p->adapters));
    TRY(take_number("net", o->net, 0.001, rate_most, &p->net_gbits));
    TRY(take_number("inside", o->inside, 0.001, rate_most, &p->inside_gbytes));
    TRY(take_number("net-share", o->net_share, 1, 100, &p->net_percent));
    TRY(take_number("hop-us", o->hop_us, 0, rate_most, &p->hop_us));
    return take_number("noise", o->noise, 0, 100, &p->noise_percent);
}

static int take_work(const options *o, plan_options *p)
{
    TRY(take_count("gpu-batch", o->gpu_batch, IMAGES_MOST, &p->gpu_batch));
    TRY(take_number("step-ms", o->step_ms, 0.001, 1e9, &p->step_ms));
    TRY(take_number("image-kb", o->image_kb, 0.001, rate_most, &p->image_kbytes));
    return take_number("core-rate", o->core_rate, 0.001, 1e9, &p->images_per_core);
}

static int run(const options *o, logger *log, comm *ranks)
{
    plan_options wanted = plan_defaults();
    wanted.pattern = o->pattern;
    wanted.layers = o->layers;
    wanted.json = o->json;
    TRY(take_cluster(o, &wanted));
    TRY(take_work(o, &wanted));
    return comm_agree(ranks, plan_run(&o->config, &wanted, log));
}

const command command_plan = {
    .name = "plan",
    .summary = "predict steps, efficiency and data rates on a cluster that is not here",
    .usage = "",
    .options = OPTION_PLAN | OPTION_JSON,
    .uses_settings = true,
    .run = run,
};

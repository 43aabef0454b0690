/* Owns what a subcommand works with. Invariant: experiment_close frees whatever was opened, however far it came.
 * One thread. */
#include "train/experiment.h"
#include "base/error.h"
#include "train/agreement.h"
#include "train/device.h"
#include "train/feed.h"
#include "train/initialise.h"
#include "train/sums.h"
#include "train/threads.h"

#include <string.h>

static int open_set(experiment *e, data_split split, image_set *set)
{
    const settings *c = &e->config;
    const source_request request = {.path = c->data.path,
                                    .split = split,
                                    .limit =
                                        (int32_t)(split == SPLIT_TRAIN ? c->data.train_images : c->data.test_images),
                                    .side = e->step.model.image_height,
                                    .classes = e->step.model.classes,
                                    .seed = (uint64_t)c->train.seed};
    return source_open(set, e->source, &request);
}

int experiment_check_target(const experiment *e, const char *option, const char *path)
{
    CHECK(!source_holds(e->source, e->config.data.path, path), ERROR_USAGE, "%s %s: that is a file of the data set",
          option, path);
    return 0;
}

static int open_data(experiment *e, unsigned parts)
{
    const settings *c = &e->config;
    e->train_images = source_expected_images(e->source, SPLIT_TRAIN, c->data.train_images);
    e->test_images = source_expected_images(e->source, SPLIT_TEST, c->data.test_images);
    if (parts & DATA_TRAIN) {
        TRY(open_set(e, SPLIT_TRAIN, &e->train_set));
        e->train_images = e->train_set.images;
    }
    if (parts & DATA_TEST) {
        TRY(open_set(e, SPLIT_TEST, &e->test_set));
        e->test_images = e->test_set.images;
    }
    return 0;
}

/* As many classes as asked for, or as the data have; labels must fit. */
static int choose_classes(experiment *e)
{
    const int32_t in_data = e->source->classes, wanted = (int32_t)e->config.model.classes;
    CHECK(wanted == 0 || wanted >= in_data, ERROR_SETTINGS,
          "model.classes: %d is less than the %d classes of data.kind = %s (0 takes the data's own)", wanted, in_data,
          e->source->name);
    e->step.model.classes = wanted ? wanted : in_data ? in_data : DRAWN_CLASSES;
    return 0;
}

static int choose_students(const settings *c, bool on[STUDENTS])
{
    const setting_ints *wanted = &c->model.students;
    for (int i = 0; i < wanted->count; i++) {
        int64_t number = wanted->value[i];
        CHECK(number > 0 || wanted->count == 1, ERROR_SETTINGS, "model.students: 0 (none) stands alone");
        if (number == 0)
            return 0;
        CHECK(!on[STUDENTS - number], ERROR_SETTINGS, "model.students: %lld is given twice", (long long)number);
        on[STUDENTS - number] = true;
    }
    return 0;
}

static int choose_blocks(const settings *c, int32_t blocks[STAGES])
{
    const setting_ints *wanted = &c->model.blocks;
    if (wanted->count == 1 && wanted->value[0] == 0)
        return 0;
    CHECK(wanted->count == STAGES, ERROR_SETTINGS, "model.blocks: %d numbers, expected one for each of the %d stages",
          wanted->count, STAGES);
    for (int i = 0; i < STAGES; i++) {
        CHECK(wanted->value[i] > 0, ERROR_SETTINGS, "model.blocks: a stage has at least one block");
        blocks[i] = (int32_t)wanted->value[i];
    }
    return 0;
}

static int fill_model(experiment *e)
{
    const settings *c = &e->config;
    model_options *m = &e->step.model;
    m->network = network_find(c->model.network);
    if (!m->network) {
        char names[512] = "";
        for (int i = 0; network_at(i); i++)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", network_at(i)->name);
        return error_set(ERROR_SETTINGS, "model.network: there is no \"%s\"; known are %s", c->model.network, names);
    }
    m->teskd = c->model.method == METHOD_TESKD;
    m->label_smoothing = c->train.label_smoothing;
    TRY(choose_students(c, m->students_on));
    TRY(choose_blocks(c, m->blocks));
    m->width = (int32_t)c->model.width;
    m->student_width = (int32_t)c->model.student_width;
    m->image_height = m->image_width = e->source->side > 0 ? e->source->side : m->network->input;
    m->temperature = c->loss.temperature;
    m->ce_weight = c->loss.ce_weight;
    m->kd_weight = c->loss.kd_weight;
    m->feature_weight = c->loss.feature_weight;
    m->teacher_weight = c->loss.teacher_weight;
    m->kd_detach_teacher = c->loss.kd_detach_teacher;
    for (int i = 0; i < STUDENTS; i++)
        m->student_weights[i] = c->loss.student_weights.value[i];
    return choose_classes(e);
}

unsigned experiment_rewrites(const settings *config)
{
    const struct {
        bool wanted;
        unsigned bit;
    } rows[] = {
        {config->run.rewrite_upsample, REWRITE_UPSAMPLE},   {config->run.rewrite_fuse, REWRITE_FUSE},
        {config->run.rewrite_patch, REWRITE_PATCH},         {config->run.rewrite_upsample_bn, REWRITE_UPSAMPLE_BN},
        {config->run.rewrite_linear_bn, REWRITE_LINEAR_BN}, {config->run.rewrite_bias, REWRITE_BIAS}};
    unsigned rewrites = REWRITE_NONE;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        rewrites |= rows[i].wanted ? rows[i].bit : 0;
    return rewrites;
}

static int fill_step(experiment *e)
{
    const settings *c = &e->config;
    TRY(source_find(&e->source, c->data.kind));
    TRY(fill_model(e));
    e->step.rewrites = experiment_rewrites(c);
    e->step.sgd = (sgd_options){.momentum = c->train.momentum,
                                .weight_decay = c->train.weight_decay,
                                .clip_norm = c->train.clip_norm,
                                .ema_decay = c->train.ema_decay,
                                .nesterov = c->train.nesterov,
                                .decay_vectors = c->train.decay_norm_and_bias};
    return 0;
}

/* The network for one image, in plain C: what the settings alone make impossible needs no device to be seen. */
static int check_network(const experiment *e)
{
    const settings *c = &e->config;
    const step_shape shape = {.training = true, .batch = 1, .global_batch = 1, .loss_batch = 1};
    graph g;
    model m;
    graph_init(&g, DTYPE_F32);
    model_build(&m, &g, &e->step.model, &shape);
    int status = graph_status(&g);
    model_free(&m);
    graph_free(&g);
    if (status != ERROR_SHAPE)
        return status;
    return error_prefix(ERROR_SETTINGS, "model.network = %s with model.width = %lld%s, model.student_width = %lld%s",
                        c->model.network, (long long)c->model.width, c->model.width ? "" : " (its own)",
                        (long long)c->model.student_width, c->model.student_width ? "" : " (its own)");
}

static int check_training(const experiment *e)
{
    const settings *c = &e->config;
    const int64_t accumulate = c->train.accumulate, unit = accumulate * e->info->size;
    CHECK(c->train.batch % unit == 0, ERROR_SETTINGS,
          "train.batch: %lld pictures do not divide among %d rank%s%s; it must be a multiple of %lld",
          (long long)c->train.batch, e->info->size, e->info->size == 1 ? "" : "s",
          accumulate > 1 ? " in train.accumulate parts" : "", (long long)unit);
    CHECK(!c->eval.ema || c->train.ema_decay > 0, ERROR_SETTINGS,
          "eval.ema: there is no average to evaluate without train.ema_decay");
    return 0;
}

/* Everything that can be said against the settings before a device or data are opened. */
static int check_settings(const experiment *e, unsigned parts)
{
    const settings *c = &e->config;
    const bool reads_data = (parts & (DATA_TRAIN | DATA_TEST)) && e->source->wants;
    TRY(check_network(e));
    TRY(parts & WILL_TRAIN ? check_training(e) : 0);
    CHECK(!reads_data || c->data.path[0], ERROR_SETTINGS, "data.path: empty; it must be the folder that holds %s",
          e->source->wants);
    return 0;
}

static int open_parts(experiment *e, unsigned parts)
{
    TRY(fill_step(e));
    TRY(check_settings(e, parts));
    TRY(device_open(&e->device, &e->config, e->ranks, e->threads, e->log));
    dtype activation = e->device->ops->activation;
    e->step.precision = (precision_options){activation, activation == DTYPE_F16}; /* bfloat16 has float32's range */
    e->step.model.padded_channels = e->device->ops->pads_pictures ? PADDED_PICTURE_CHANNELS : 0;
    TRY(open_data(e, parts));
    TRY(feed_choose(&e->train_input, e, true));
    return feed_choose(&e->test_input, e, false);
}

int experiment_open(experiment *e, const settings *config, logger *log, comm *ranks, unsigned parts)
{
    *e = (experiment){.config = *config, .log = log, .ranks = ranks, .info = comm_describe(ranks)};
    TRY(threads_choose(config, ranks, &e->threads));
    TRY(comm_agree(ranks, open_parts(e, parts)));
    TRY(agree_on_data(e));
    TRY(comm_agree(ranks, sums_open(&e->sums, config, e->device, ranks, log)));
    runtime_open(&e->run, &(runtime_options){.device = e->device,
                                             .tensors = &e->tensors,
                                             .sums = e->sums,
                                             .ranks = e->info->size,
                                             .bucket_bytes = (size_t)(config->run.bucket_mib * 0x1p20),
                                             .sums_dtype = config->run.reduce_16bit ? e->device->ops->activation
                                                                                    : e->device->ops->real,
                                             .average_statistics = !config->run.sync_bn,
                                             .capture = config->run.capture});
    return 0;
}

bool experiment_closes(const experiment *e, int status)
{
    return status == 0 || (e->info->size == 1 && !e->sums);
}

int experiment_end(experiment *e, int status)
{
    if (experiment_closes(e, status))
        experiment_close(e);
    return status;
}

void experiment_close(experiment *e)
{
    if (e->run.options.device)
        runtime_close(&e->run);
    if (e->sums)
        e->sums->ops->close(e->sums);
    if (e->tensors.device)
        store_close(&e->tensors);
    image_set_close(&e->train_set);
    image_set_close(&e->test_set);
    if (e->device)
        e->device->ops->close(e->device);
    e->device = NULL;
}

static int ensure_store(experiment *e, const graph *g, const model *m)
{
    if (e->plan_only)
        return 0;
    if (e->tensors.device)
        return store_add(&e->tensors, g);
    TRY(store_open(&e->tensors, e->device, g));
    return initialise_store(&e->tensors, g, m, (uint64_t)e->config.train.seed);
}

static batch_part part_of(const micro_batch *m)
{
    if (m->first && m->last)
        return PART_WHOLE;
    return m->first ? PART_FIRST : m->last ? PART_LAST : PART_MIDDLE;
}

static int build_step(experiment *e, bool training, const micro_batch *m, graph *g, model *network)
{
    const step_shape shape = {.training = true,
                              .sync_bn = e->config.run.sync_bn,
                              .batch = m->images > 0 ? m->images : 1,
                              .global_batch = m->global_images,
                              .loss_batch = m->step_images,
                              .part = part_of(m),
                              .input = e->train_input};
    return training ? step_build_training(g, network, &e->step, &shape)
                    : step_build_evaluation(g, network, &e->step, shape.batch, &e->test_input);
}

/* A rank without an image of such a micro-batch needs no program, but has the same store as the others. */
static int add_program(experiment *e, bool training, const micro_batch *m, program **out)
{
    graph g;
    model network;
    graph_init(&g, e->device->ops->real);
    int status = build_step(e, training, m, &g, &network);
    if (status == 0)
        status = ensure_store(e, &g, &network);
    model_free(&network);
    if (status == 0 && m->images > 0)
        return runtime_add(&e->run, &g, out);
    graph_free(&g);
    return status;
}

static int add_programs(experiment *e, bool training)
{
    const batch_plan *plan = training ? &e->train_plan : &e->test_plan;
    for (int kind = 0; kind < MICRO_BATCH_KINDS; kind++) {
        micro_batch m;
        if (batch_plan_find(plan, kind, &m))
            TRY(add_program(e, training, &m, training ? &e->training[kind] : &e->evaluation[kind]));
    }
    return 0;
}

static int build_training(experiment *e)
{
    const settings *c = &e->config;
    TRY(batch_plan_make(&e->train_plan, &(batch_options){.images = e->train_images,
                                                         .batch = (int32_t)c->train.batch,
                                                         .accumulate = (int32_t)c->train.accumulate,
                                                         .rank = e->info->rank,
                                                         .ranks = e->info->size,
                                                         .drop_last = c->data.drop_last,
                                                         .training = true}));
    return add_programs(e, true);
}

int experiment_build_training(experiment *e)
{
    return comm_agree(e->ranks, build_training(e));
}

static int build_evaluation(experiment *e)
{
    const settings *c = &e->config;
    TRY(batch_plan_make(&e->test_plan,
                        &(batch_options){.images = e->test_images,
                                         .batch = (int32_t)(c->eval.batch ? c->eval.batch : c->train.batch),
                                         .accumulate = 1,
                                         .rank = e->info->rank,
                                         .ranks = e->info->size}));
    return add_programs(e, false);
}

int experiment_build_evaluation(experiment *e)
{
    return comm_agree(e->ranks, build_evaluation(e));
}

static int bind(experiment *e)
{
    TRY(runtime_bind(&e->run));
    return store_refresh_copies(&e->tensors);
}

int experiment_bind(experiment *e)
{
    return comm_agree(e->ranks, bind(e));
}

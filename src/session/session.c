/* Owns a device, the weights on it, the data, and the programs of a run. Invariant: session_close frees whatever was
 * opened, however far it came. One thread. */
#include "session/session.h"
#include "base/error.h"
#include "io/data/augment.h"
#include "session/agreement.h"
#include "session/configure.h"
#include "session/device.h"
#include "session/initialise.h"
#include "session/reduction.h"
#include "session/stage.h"
#include "session/threads.h"

#include <stdio.h>
#include <string.h>

/* A set may stay on the device if it takes at most this much, and this share of the free memory. */
static const size_t resident_limit = (size_t)1 << 30, resident_share = 4;

static int agree(void *context, int status)
{
    return comm_agree(context, status);
}

static int broadcast(void *context, void *bytes, size_t size)
{
    return comm_broadcast(context, bytes, size, 0);
}

static int open_set(session *e, data_split split, image_set *set)
{
    const settings *c = &e->config;
    const source_ranks ranks = {
        .context = e->ranks, .first = e->info->rank == 0, .agree = agree, .broadcast = broadcast};
    const source_request request = {.path = e->data_path,
                                    .split = split,
                                    .limit =
                                        (int32_t)(split == SPLIT_TRAIN ? c->data.train_images : c->data.test_images),
                                    .side = e->step.model.image_height,
                                    .classes = e->step.model.classes,
                                    .seed = (uint64_t)c->train.seed,
                                    .ranks = e->info->size > 1 ? &ranks : NULL};
    TRY(source_open(set, e->images.source, &request));
    CHECK(set->classes <= e->step.model.classes, ERROR_SETTINGS,
          "model.classes: %d is less than the %d classes of data.kind = %s (0 takes the data's own)",
          e->step.model.classes, set->classes, c->data.kind);
    return 0;
}

int session_check_target(const session *e, const char *option, const char *path)
{
    CHECK(!source_holds(e->images.source, e->config.data.path, path), ERROR_USAGE,
          "%s %s: that is a file of the data set", option, path);
    return 0;
}

/* Folders number their own classes: one that a split lacks would move the labels of those behind it. */
static int check_class_names(const session *e)
{
    const image_set *train = &e->train_set, *test = &e->test_set;
    if (!train->class_names || !test->class_names)
        return 0;
    for (int32_t label = 0; label < train->classes || label < test->classes; label++) {
        const char *a = image_set_class_name(train, label), *b = image_set_class_name(test, label);
        CHECK(
            a && b && strcmp(a, b) == 0, ERROR_DATA,
            "%s: class %d is \"%s\" in the training images, but \"%s\" in the test images; both need the same classes",
            e->data_path, label, a ? a : "(none)", b ? b : "(none)");
    }
    return 0;
}

/* The ranks may open a set together, so they agree before each. */
static int open_data(session *e, unsigned needs)
{
    const settings *c = &e->config;
    e->train_images = source_expected_images(e->images.source, SPLIT_TRAIN, c->data.train_images);
    e->test_images = source_expected_images(e->images.source, SPLIT_TEST, c->data.test_images);
    snprintf(e->data_path, sizeof e->data_path, "%s", c->data.path);
    if ((needs & (DATA_TRAIN | DATA_TEST)) && e->images.source->driver->in_shards && c->data.stage[0])
        TRY(stage_data(c, e->ranks, e->log, e->data_path));
    if (needs & DATA_TRAIN) {
        TRY(comm_agree(e->ranks, open_set(e, SPLIT_TRAIN, &e->train_set)));
        e->train_images = e->train_set.images;
    }
    if (needs & DATA_TEST) {
        TRY(comm_agree(e->ranks, open_set(e, SPLIT_TEST, &e->test_set)));
        e->test_images = e->test_set.images;
    }
    TRY(comm_agree(e->ranks, check_class_names(e)));
    return agree_on_data(e->ranks, &e->train_set, &e->test_set);
}

static int choose_inputs(session *e)
{
    TRY(session_choose_input(e, SPLIT_TRAIN, &e->train_input));
    return session_choose_input(e, SPLIT_TEST, &e->test_input);
}

static int check_training(const session *e)
{
    const settings *c = &e->config;
    const int64_t accumulate = c->train.accumulate, unit = accumulate * e->info->size;
    CHECK(c->train.batch % unit == 0, ERROR_SETTINGS,
          "train.batch: %lld images do not divide among %d rank%s%s; it must be a multiple of %lld",
          (long long)c->train.batch, e->info->size, e->info->size == 1 ? "" : "s",
          accumulate > 1 ? " in train.accumulate micro-batches" : "", (long long)unit);
    CHECK(!c->eval.ema || c->train.ema_decay > 0, ERROR_SETTINGS,
          "eval.ema: there is no average to evaluate without train.ema_decay");
    return 0;
}

/* Everything that can be said against the settings before a device or data are opened. */
static int check_settings(const session *e, unsigned needs)
{
    const settings *c = &e->config;
    const bool reads_data = (needs & (DATA_TRAIN | DATA_TEST)) && e->images.source->wants;
    TRY(needs & WILL_TRAIN ? check_training(e) : 0);
    CHECK(!reads_data || c->data.path[0], ERROR_SETTINGS, "data.path: empty; it must be the folder that holds %s",
          e->images.source->wants);
    return 0;
}

int session_choose_input(const session *e, data_split split, step_input *input)
{
    backend *device = e->device;
    int64_t images = split == SPLIT_TRAIN ? e->train_images : e->test_images;
    size_t free_bytes = SIZE_MAX, bytes = (size_t)images * (size_t)e->step.model.image_height *
                                          (size_t)e->step.model.image_width * IMAGE_CHANNELS;
    *input = (step_input){.kind = INPUT_REAL};
    if (device->ops->host_memory)
        return 0;
    if (device->ops->free_bytes)
        TRY(device->ops->free_bytes(device, &free_bytes));
    data_placement placement = e->images.source->placement;
    bool small = bytes <= resident_limit || placement == PLACEMENT_DEVICE;
    bool resident = small && bytes <= free_bytes / resident_share && placement != PLACEMENT_HOST;
    *input = (step_input){.kind = resident ? INPUT_RESIDENT : INPUT_BYTES,
                          .set = split == SPLIT_TRAIN ? "data/train" : "data/test",
                          .set_images = (int32_t)images,
                          .crop_padding = AUGMENT_PADDING};
    return 0;
}

static int configure_session(session *e, unsigned needs)
{
    TRY(configure(&e->config, &e->images, &e->step));
    return check_settings(e, needs);
}

static int open_device(session *e)
{
    TRY(device_open(&e->device, &e->config, e->ranks, e->threads, e->log));
    configure_for_device(&e->step, e->device->ops);
    e->near_device = threads_move_near(e->device);
    return 0;
}

int session_open(session *e, const settings *config, logger *log, comm *ranks, unsigned needs)
{
    *e = (session){.config = *config, .log = log, .ranks = ranks, .info = comm_describe(ranks)};
    TRY(threads_choose(config, ranks, &e->threads));
    TRY(comm_agree(ranks, configure_session(e, needs))); /* first: the ranks open a device together */
    TRY(comm_agree(ranks, open_device(e)));
    TRY(threads_for_loader(&e->config, e->device, ranks, &e->loader_threads));
    TRY(open_data(e, needs));
    TRY(comm_agree(ranks, choose_inputs(e)));
    TRY(comm_agree(ranks, reduction_open(&e->reducer, config, e->device, ranks, log)));
    runtime_open(&e->run, &(runtime_options){.device = e->device,
                                             .tensors = &e->tensors,
                                             .reducer = e->reducer,
                                             .ranks = e->info->size,
                                             .buckets = configure_buckets(config),
                                             .reduction_dtype = config->run.reduce_16bit ? e->device->ops->activation
                                                                                         : e->device->ops->real,
                                             .average_statistics = !config->run.sync_bn,
                                             .capture = config->run.capture});
    return 0;
}

bool session_closes(const session *e, int status)
{
    return status == 0 || (e->info->size == 1 && !e->reducer);
}

int session_end(session *e, int status)
{
    if (session_closes(e, status))
        session_close(e);
    return status;
}

void session_close(session *e)
{
    if (e->run.options.device)
        runtime_close(&e->run);
    if (e->reducer)
        e->reducer->ops->close(e->reducer);
    if (e->tensors.device)
        store_close(&e->tensors);
    image_set_close(&e->train_set);
    image_set_close(&e->test_set);
    if (e->device)
        e->device->ops->close(e->device);
    e->device = NULL;
}

static int ensure_store(session *e, const graph *g, const model *m)
{
    if (e->plan_only)
        return 0;
    if (e->tensors.device)
        return store_add(&e->tensors, g);
    TRY(store_open(&e->tensors, e->device, g));
    return initialise_store(&e->tensors, g, m, (uint64_t)e->config.train.seed);
}

static micro_batch_place place_of(const micro_batch *m)
{
    if (m->first && m->last)
        return MICRO_BATCH_WHOLE;
    return m->first ? MICRO_BATCH_FIRST : m->last ? MICRO_BATCH_LAST : MICRO_BATCH_MIDDLE;
}

typedef struct {
    bool training;
    int32_t size; /* height and width of the images */
    micro_batch m;
} program_request;

static int build_step(session *e, const program_request *request, graph *g, model *network)
{
    const micro_batch *m = &request->m;
    step_options options = e->step;
    options.model.image_height = options.model.image_width = request->size;
    const step_shape shape = {.training = true,
                              .sync_bn = e->config.run.sync_bn,
                              .batch = m->images > 0 ? m->images : 1,
                              .global_batch = m->global_images,
                              .loss_batch = m->step_images,
                              .place = place_of(m),
                              .input = e->train_input};
    return request->training ? step_build_training(g, network, &options, &shape)
                             : step_build_evaluation(g, network, &options, shape.batch, &e->test_input);
}

/* A rank without an image of such a micro-batch needs no program, but has the same store as the others. */
static int add_program(session *e, const program_request *request, program **out)
{
    graph g;
    model network;
    graph_init(&g, e->device->ops->real);
    int status = build_step(e, request, &g, &network);
    if (status == 0)
        status = ensure_store(e, &g, &network);
    model_free(&network);
    if (status == 0 && request->m.images > 0)
        return runtime_add(&e->run, &g, out);
    graph_free(&g);
    return status;
}

/* A program for each kind of micro-batch, of images of one size. */
static int add_programs(session *e, bool training, int32_t size, program **programs)
{
    program_request request = {.training = training, .size = size};
    for (int kind = 0; kind < MICRO_BATCH_KINDS; kind++)
        if (batch_plan_find(training ? &e->train_plan : &e->test_plan, kind, &request.m))
            TRY(add_program(e, &request, &programs[kind]));
    return 0;
}

program *const *session_last_size(const session *e)
{
    int32_t list[IMAGE_SIZES_MOST];
    return e->training[image_sizes_list(&e->images.sizes, list) - 1];
}

static int build_training(session *e)
{
    const settings *c = &e->config;
    int32_t sizes[IMAGE_SIZES_MOST];
    TRY(batch_plan_make(&e->train_plan, &(batch_options){.images = e->train_images,
                                                         .batch = (int32_t)c->train.batch,
                                                         .accumulate = (int32_t)c->train.accumulate,
                                                         .rank = e->info->rank,
                                                         .ranks = e->info->size,
                                                         .drop_last = c->data.drop_last,
                                                         .training = true}));
    for (int i = image_sizes_list(&e->images.sizes, sizes) - 1; i >= 0; i--) /* the largest needs the most memory */
        TRY(add_programs(e, true, sizes[i], e->training[i]));
    return 0;
}

int session_build_training(session *e)
{
    return comm_agree(e->ranks, build_training(e));
}

static int build_evaluation(session *e)
{
    const settings *c = &e->config;
    TRY(batch_plan_make(&e->test_plan,
                        &(batch_options){.images = e->test_images,
                                         .batch = (int32_t)(c->eval.batch ? c->eval.batch : c->train.batch),
                                         .accumulate = 1,
                                         .rank = e->info->rank,
                                         .ranks = e->info->size}));
    return add_programs(e, false, e->images.eval_size, e->evaluation);
}

int session_build_evaluation(session *e)
{
    return comm_agree(e->ranks, build_evaluation(e));
}

static int bind(session *e)
{
    TRY(runtime_bind(&e->run));
    return store_refresh_copies(&e->tensors);
}

int session_bind(session *e)
{
    return comm_agree(e->ranks, bind(e));
}

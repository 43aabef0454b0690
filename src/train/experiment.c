/* Owns what a subcommand works with. Invariant: experiment_close frees whatever was opened, however far it came.
 * One thread. */
#include "train/experiment.h"
#include "base/error.h"
#include "train/device.h"
#include "train/initialise.h"

#include <string.h>

static const int32_t cifar_side = 32;

static int open_set(const settings *config, dataset_split split, dataset *set)
{
    bool training = split == DATASET_TRAIN;
    int32_t limit = (int32_t)(training ? config->data.train_images : config->data.test_images);
    if (config->data.kind == DATA_SYNTHETIC) {
        int32_t classes = config->model.classes ? (int32_t)config->model.classes : 10;
        uint64_t seed = (uint64_t)config->train.seed + (training ? 0 : 1);
        int32_t side = network_find(config->model.network)->input;
        return dataset_open_synthetic(set, limit ? limit : 1024, side, side, classes, seed);
    }
    CHECK(config->data.path[0], ERROR_SETTINGS, "data.path: empty; it must be the folder that holds %s",
          config->data.kind == DATA_CIFAR10 ? "CIFAR-10's data_batch_1.bin" : "CIFAR-100's train.bin");
    return dataset_open_cifar(set, config->data.kind == DATA_CIFAR10 ? 10 : 100, config->data.path, split, limit);
}

static int64_t official_images(const settings *config, bool training)
{
    int64_t limit = training ? config->data.train_images : config->data.test_images;
    int64_t all = config->data.kind == DATA_SYNTHETIC ? 1024 : training ? 50000 : 10000;
    return limit && (limit < all || config->data.kind == DATA_SYNTHETIC) ? limit : all;
}

static int open_data(experiment *e, unsigned parts)
{
    const settings *config = &e->config;
    if (parts & DATA_TRAIN)
        TRY(open_set(config, DATASET_TRAIN, &e->train_set));
    if (parts & DATA_TEST)
        TRY(open_set(config, DATASET_TEST, &e->test_set));
    e->train_images = e->train_set.images ? e->train_set.images : official_images(config, true);
    e->test_images = e->test_set.images ? e->test_set.images : official_images(config, false);
    return 0;
}

/* As many classes as asked for, or as the data has; labels must fit. */
static int choose_classes(experiment *e)
{
    int32_t in_data = e->config.data.kind == DATA_CIFAR100 ? 100 : 10, wanted = (int32_t)e->config.model.classes;
    CHECK(wanted == 0 || wanted >= in_data || e->config.data.kind == DATA_SYNTHETIC, ERROR_SETTINGS,
          "model.classes: %d, but the data has %d classes", wanted, in_data);
    e->step.model.classes = wanted ? wanted : in_data;
    return 0;
}

static int choose_students(const settings *c, bool on[STUDENTS])
{
    const setting_ints *wanted = &c->model.students;
    for (int i = 0; i < wanted->count; i++) {
        int64_t number = wanted->value[i];
        CHECK(number > 0 || wanted->count == 1, ERROR_SETTINGS, "model.students: 0 (none) stands alone");
        if (number > 0)
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
    m->image_height = m->image_width = e->config.data.kind == DATA_SYNTHETIC ? m->network->input : cifar_side;
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

static int fill_step(experiment *e)
{
    const settings *c = &e->config;
    TRY(fill_model(e));
    e->step.rewrites = (rewrite_options){c->run.rewrite_upsample, c->run.rewrite_fuse, c->run.rewrite_patch};
    e->step.sgd =
        (sgd_options){c->train.momentum, c->train.weight_decay, c->train.nesterov, c->train.decay_norm_and_bias};
    e->batch = (int32_t)c->train.batch;
    e->eval_batch = (int32_t)(c->eval.batch ? c->eval.batch : c->train.batch);
    return 0;
}

static int open_parts(experiment *e, unsigned parts)
{
    TRY(fill_step(e));
    TRY(device_open(&e->device, &e->config, e->threads));
    return open_data(e, parts);
}

int experiment_open(experiment *e, const settings *config, logger *log, comm *ranks, unsigned parts)
{
    *e = (experiment){.config = *config, .log = log, .ranks = ranks, .info = comm_describe(ranks)};
    TRY(device_threads(config, ranks, &e->threads));
    TRY(comm_agree(ranks, open_parts(e, parts)));
    runtime_open(&e->run, e->device, ranks, &e->tensors, (size_t)(config->run.bucket_mib * 0x1p20));
    return 0;
}

void experiment_close(experiment *e)
{
    runtime_close(&e->run);
    if (e->tensors.device)
        store_close(&e->tensors);
    dataset_close(&e->train_set);
    dataset_close(&e->test_set);
    if (e->device)
        e->device->ops->close(e->device);
    e->device = NULL;
}

/* This rank's share of a global batch: the first ranks take one more where it does not divide. */
static int32_t share(const experiment *e, int64_t global_images)
{
    return (int32_t)(global_images / e->info->size + (e->info->rank < global_images % e->info->size));
}

static int ensure_store(experiment *e, const graph *g, const model *m)
{
    if (e->tensors.device)
        return 0;
    TRY(store_open(&e->tensors, e->device, g));
    return initialise_store(&e->tensors, g, m, (uint64_t)e->config.train.seed);
}

static int add_program(experiment *e, bool training, int64_t global_images, sized_program *out)
{
    graph g;
    model m;
    *out = (sized_program){.images = share(e, global_images), .global_images = (int32_t)global_images};
    if (out->images == 0)
        return 0;
    graph_init(&g, e->device->ops->real);
    const step_shape shape = {true, e->config.run.sync_bn, out->images, out->global_images};
    int status =
        training ? step_build_training(&g, &m, &e->step, &shape) : step_build_evaluation(&g, &m, &e->step, out->images);
    if (status == 0)
        status = ensure_store(e, &g, &m);
    model_free(&m);
    if (status < 0) {
        graph_free(&g);
        return status;
    }
    return runtime_add(&e->run, &g, &out->program);
}

static int build(experiment *e, bool training, int64_t images, int32_t batch, sized_program programs[SIZES])
{
    bool drop = training && e->config.data.drop_last;
    int64_t last = images % batch;
    int status = 0;
    if (images >= batch)
        status = add_program(e, training, batch, &programs[0]);
    if (status == 0 && last > 0 && !drop)
        status = add_program(e, training, last, &programs[1]);
    return comm_agree(e->ranks, status);
}

static int check_batch(const experiment *e)
{
    CHECK(e->batch % e->info->size == 0, ERROR_SETTINGS,
          "train.batch: %d pictures do not divide among %d ranks; it must be a multiple of their number", e->batch,
          e->info->size);
    CHECK(experiment_steps(e) > 0, ERROR_SETTINGS,
          "data.drop_last: yes leaves no step, since train.batch = %d is more than the %lld training pictures",
          e->batch, (long long)e->train_images);
    return 0;
}

int experiment_build_training(experiment *e)
{
    TRY(comm_agree(e->ranks, check_batch(e)));
    return build(e, true, e->train_images, e->batch, e->training);
}

int experiment_build_evaluation(experiment *e)
{
    return build(e, false, e->test_images, e->eval_batch, e->evaluation);
}

int experiment_bind(experiment *e)
{
    return comm_agree(e->ranks, runtime_bind(&e->run));
}

int64_t experiment_steps(const experiment *e)
{
    int64_t whole = e->train_images / e->batch, last = e->train_images % e->batch;
    return whole + (last > 0 && !e->config.data.drop_last);
}

int experiment_open_loader(const experiment *e, bool training, loader **out)
{
    const loader_options options = {.dataset = training ? &e->train_set : &e->test_set,
                                    .global_batch = training ? e->batch : e->eval_batch,
                                    .rank = e->info->rank,
                                    .size = e->info->size,
                                    .seed = (uint64_t)e->config.train.seed,
                                    .shuffle = training,
                                    .augment = training && e->config.data.augment,
                                    .drop_last = training && e->config.data.drop_last,
                                    .real = e->device->ops->real == DTYPE_F64 ? REAL_FLOAT64 : REAL_FLOAT32};
    return comm_agree(e->ranks, loader_open(out, &options));
}

program *experiment_feed(experiment *e, const sized_program *programs, const loader_batch *batch)
{
    for (int i = 0; i < SIZES; i++) {
        program *p = programs[i].program;
        if (!p || programs[i].images != batch->images || programs[i].global_images != batch->global_images)
            continue;
        const tensor_desc *desc;
        void *input = program_value(p, &e->run, "input", &desc);
        memcpy(input, batch->pixels, tensor_bytes(desc));
        memcpy(program_value(p, &e->run, "target", NULL), batch->labels, (size_t)batch->images * sizeof *batch->labels);
        return p;
    }
    return NULL;
}

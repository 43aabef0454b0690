/* Translates settings into the options of a step. Holds no state; any thread. */
#include "session/configure.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* As many classes as asked for, or as the data have; labels must fit. Data that are looked at are so when they are
 * opened, where the number is given: an export needs none. */
static int choose_classes(const settings *c, const data_source *source, model_options *m)
{
    source_facts facts = {.classes = 0};
    const int32_t wanted = (int32_t)c->model.classes;
    if (wanted == 0 || !source->driver->describe)
        TRY(source_describe(&facts, source, c->data.path));
    CHECK(wanted == 0 || wanted >= facts.classes, ERROR_SETTINGS,
          "model.classes: %d is less than the %d classes of data.kind = %s (0 takes the data's own)", wanted,
          facts.classes, source->name);
    m->classes = wanted ? wanted : facts.classes ? facts.classes : SYNTHETIC_CLASSES;
    return 0;
}

/* Images of one size stay as they are. */
static int keep_size(const settings *c, const image_options *images)
{
    const image_sizes *sizes = &images->sizes;
    CHECK(images->source->side <= 0 || sizes->last == images->source->side, ERROR_SETTINGS,
          "data.image_size: %d, but the images of data.kind = %s are of %dx%d and stay so (0 takes their size)",
          sizes->last, images->source->name, images->source->side, images->source->side);
    CHECK(sizes->first == sizes->last && images->eval_size == sizes->last, ERROR_SETTINGS,
          "data.image_size, data.eval_size: data.kind = %s has images of one size; those of shards and folders can be "
          "scaled to several",
          c->data.kind);
    return 0;
}

static int choose_sizes(const settings *c, image_options *images, const network_row *network)
{
    const setting_ints *wanted = &c->data.image_size;
    const int32_t own = images->source->side > 0 ? images->source->side : network->input;
    const int32_t last = (int32_t)wanted->value[wanted->count - 1];
    images->sizes = (image_sizes){.last = last > 0 ? last : own, .epochs = c->train.epochs};
    images->sizes.first = wanted->count > 1 ? (int32_t)wanted->value[0] : images->sizes.last;
    images->eval_size = c->data.eval_size ? (int32_t)c->data.eval_size : images->sizes.last;
    images->resize_size =
        c->data.resize_size ? (int32_t)c->data.resize_size : (int32_t)rint(images->eval_size * 256.0 / 224);
    CHECK(images->resize_size >= images->eval_size, ERROR_SETTINGS,
          "data.resize_size: %d is less than the %d pixels of an evaluation's images, which are cut from it",
          images->resize_size, images->eval_size);
    int32_t list[IMAGE_SIZES_MOST];
    CHECK(image_sizes_list(&images->sizes, list) > 0, ERROR_SETTINGS,
          "data.image_size: from %d to %d pixels are more than %d sizes in steps of %d", images->sizes.first, last,
          IMAGE_SIZES_MOST, IMAGE_SIZE_STEP);
    return images->source->side == SIZE_VARIES ? 0 : keep_size(c, images);
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

static int fill_model(const settings *c, image_options *images, model_options *m)
{
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
    TRY(choose_sizes(c, images, m->network));
    m->image_height = m->image_width = images->sizes.last;
    m->temperature = c->loss.temperature;
    m->ce_weight = c->loss.ce_weight;
    m->kd_weight = c->loss.kd_weight;
    m->feature_weight = c->loss.feature_weight;
    m->teacher_weight = c->loss.teacher_weight;
    m->kd_detach_teacher = c->loss.kd_detach_teacher;
    for (int i = 0; i < STUDENTS; i++)
        m->student_weights[i] = c->loss.student_weights.value[i];
    return choose_classes(c, images->source, m);
}

unsigned configure_rewrites(const settings *config)
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

/* The network for one image, in plain C: what the settings alone make impossible needs no device to be seen. */
static int check_network(const settings *c, const model_options *m, int32_t size)
{
    model_options options = *m;
    const step_shape shape = {.training = true, .batch = 1, .global_batch = 1, .loss_batch = 1};
    graph g;
    model built;
    options.image_height = options.image_width = size;
    graph_init(&g, DTYPE_F32);
    model_build(&built, &g, &options, &shape);
    int status = graph_status(&g);
    model_free(&built);
    graph_free(&g);
    if (status != ERROR_SHAPE)
        return status;
    return error_prefix(ERROR_SETTINGS,
                        "model.network = %s with model.width = %lld%s, model.student_width = %lld%s, images of %dx%d",
                        c->model.network, (long long)c->model.width, c->model.width ? "" : " (its own)",
                        (long long)c->model.student_width, c->model.student_width ? "" : " (its own)", size, size);
}

static int check_networks(const settings *c, const image_options *images, const model_options *m)
{
    int32_t list[IMAGE_SIZES_MOST];
    const int count = image_sizes_list(&images->sizes, list);
    for (int i = 0; i < count; i++)
        TRY(check_network(c, m, list[i]));
    return images->eval_size == images->sizes.last ? 0 : check_network(c, m, images->eval_size);
}

int configure(const settings *config, image_options *images, step_options *step)
{
    *images = (image_options){.source = NULL};
    TRY(source_find(&images->source, config->data.kind));
    TRY(fill_model(config, images, &step->model));
    step->rewrites = configure_rewrites(config);
    step->sgd = (sgd_options){.momentum = config->train.momentum,
                              .weight_decay = config->train.weight_decay,
                              .clip_norm = config->train.clip_norm,
                              .ema_decay = config->train.ema_decay,
                              .lars_eta = config->train.optimizer == OPTIMIZER_LARS ? config->train.lars_eta : 0,
                              .nesterov = config->train.nesterov,
                              .decay_vectors = config->train.decay_norm_and_bias,
                              .withholds = config->run.check_finite};
    return check_networks(config, images, &step->model);
}

void configure_for_device(step_options *step, const backend_ops *device)
{
    const dtype activation = device->activation;
    step->precision = (precision_options){.activation = activation,
                                          .loss_scaling = activation == DTYPE_F16}; /* bfloat16 has float32's range */
    step->fuses = device->fuses;
    step->placed_rows = device->placed_rows;
    step->model.padded_channels = device->pads_images ? PADDED_IMAGE_CHANNELS : 0;
}

static size_t bytes_of_mib(double mib)
{
    return (size_t)(mib * 0x1p20);
}

bucket_sizes configure_buckets(const settings *config)
{
    return (bucket_sizes){.first = bytes_of_mib(config->run.first_bucket_mib),
                          .most = bytes_of_mib(config->run.bucket_mib),
                          .last = bytes_of_mib(config->run.last_bucket_mib)};
}

/* The way of images into programs on a device with memory of its own: whether the device holds the set or bytes come
 * through the ring, the first layer reads what io/data/augment.h makes, to the bit, however late the device does its
 * work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/rng.h"
#include "emulated.h"
#include "io/data/augment.h"
#include "session/feed.h"

enum {
    IMAGES = 53, /* a last batch of 13 */
    TEST_IMAGES = 22,
    BATCH = 20,
    STEPS = 3,
    EPOCHS = 2,
    SIDE = 32,
    PLACES = SIDE * SIDE,
    PIXELS = PLACES * IMAGE_CHANNELS,
    PADDED = PLACES * PADDED_IMAGE_CHANNELS
};

typedef struct {
    comm *ranks;
    logger log;
    settings config;
    session e;
} fixture;

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

static const char *const kinds[] = {"synthetic", "synthetic_host"};

static void default_settings(settings *config, const char *kind)
{
    settings_default(config);
    OK(settings_set(config, "model.network=cifarresnet8"));
    config->model.width = 4;
    config->model.student_width = 8;
    snprintf(config->data.kind, sizeof config->data.kind, "%s", kind);
    config->data.train_images = IMAGES;
    config->data.test_images = TEST_IMAGES;
    config->train.batch = BATCH;
    config->train.seed = 5;
    config->run.device = DEVICE_CUDA;
    config->run.precision = PRECISION_FP32;
    config->run.deterministic = true;
    config->run.threads = 1;
}

/* `late`: the device's work is done when something waits for it. */
static void open_session(fixture *f, bool late)
{
    OK(comm_open_self(&f->ranks));
    log_open(&f->log, 0, 1, "here");
    emulated_defer(late);
    OK(session_open(&f->e, &f->config, &f->log, f->ranks, DATA_TRAIN | DATA_TEST));
}

static void build(fixture *f)
{
    OK(session_build_training(&f->e));
    OK(session_build_evaluation(&f->e));
    OK(session_bind(&f->e));
}

static void close_session(fixture *f)
{
    session_close(&f->e);
    comm_close(f->ranks);
    emulated_defer(false);
    assert_int_equal(emulated_used(), 0);
}

/* ---- what the first layer reads ---- */

/* Images of several batches, kept on the device so that nothing waits for it in between. */
typedef struct {
    session *e;
    char *memory;
    size_t bytes;
} image_log;

static image_log open_images(session *e, int images)
{
    image_log p = {.e = e};
    p.memory = e->device->ops->alloc(e->device, (size_t)images * PADDED * sizeof(float));
    assert_non_null(p.memory);
    return p;
}

static void log_images(image_log *p, const feed_batch *batch)
{
    backend *device = p->e->device;
    const program *step = batch->step;
    for (uint32_t i = 0; i < step->n_launches; i++) {
        const program_launch *launch = &step->launches[i];
        const graph_node *node = &step->step.nodes[launch->first_node];
        if (node->op != OP_IMAGES)
            continue;
        size_t bytes = tensor_bytes(graph_desc(&step->step, node->out[0]));
        assert_int_equal(bytes, (size_t)batch->images * PADDED * sizeof(float));
        OK(device->ops->launch(device, launch->kernel, &launch->args));
        OK(device->ops->copy(device, p->memory + p->bytes, launch->args.out[0], bytes));
        p->bytes += bytes;
        return;
    }
    fail_msg("the program makes no images");
}

/* Against float32 images of three channels; the others are zero. */
static void expect_images(image_log *p, const float *expected, int images)
{
    float *got = malloc(p->bytes);
    assert_int_equal(p->bytes, (size_t)images * PADDED * sizeof(float));
    OK(p->e->device->ops->read(p->e->device, got, p->memory, p->bytes));
    for (int64_t i = 0; i < (int64_t)images * PLACES; i++) {
        const float *pixel = got + i * PADDED_IMAGE_CHANNELS;
        if (memcmp(pixel, expected + i * IMAGE_CHANNELS, IMAGE_CHANNELS * sizeof *pixel) != 0)
            fail_msg("place %lld of image %lld differs", (long long)i % PLACES, (long long)i / PLACES);
        for (int c = IMAGE_CHANNELS; c < PADDED_IMAGE_CHANNELS; c++)
            assert_true(pixel[c] == 0);
    }
    free(got);
    p->e->device->ops->free(p->e->device, p->memory);
}

/* The training images and labels of an epoch in order, by the definition. */
static void make_epoch(const session *e, int32_t epoch, float *pixels, int32_t *labels)
{
    int32_t order[IMAGES];
    const augment_key key = {(uint64_t)e->config.train.seed, epoch};
    rng_permutation(key.seed, (uint64_t)epoch, IMAGES, order);
    OK(augment_batch(&e->train_set, &key, order, 0, IMAGES, DTYPE_F32, pixels, labels));
}

static float all_images[EPOCHS * IMAGES * PIXELS];
static int32_t all_labels[EPOCHS * IMAGES];

static void make_all(const session *e)
{
    for (int32_t epoch = 0; epoch < EPOCHS; epoch++)
        make_epoch(e, epoch, all_images + (size_t)epoch * IMAGES * PIXELS, all_labels + epoch * IMAGES);
}

static void check_labels(const session *e, const feed_batch *batch, const int32_t *expected)
{
    double target[BATCH];
    assert_memory_equal(batch->labels, expected, (size_t)batch->images * sizeof *expected);
    OK(program_read(batch->step, &e->run, "target", target));
    for (int n = 0; n < batch->images; n++)
        assert_int_equal(target[n], expected[n]);
}

static void feed_two_epochs(fixture *f, feed *batches)
{
    image_log made = open_images(&f->e, EPOCHS * IMAGES);
    int seen = 0;
    assert_int_equal(f->e.train_plan.micro_batches, STEPS);
    for (int step = 0; step < EPOCHS * STEPS; step++) {
        feed_batch batch;
        if (step % STEPS == 0)
            OK(feed_seek(batches, step / STEPS, 0));
        OK(feed_next(batches, &batch));
        assert_int_equal(batch.images, step % STEPS == STEPS - 1 ? IMAGES % BATCH : BATCH);
        log_images(&made, &batch);
        if (step % 2)
            check_labels(&f->e, &batch, all_labels + seen);
        seen += batch.images;
    }
    make_all(&f->e);
    expect_images(&made, all_images, EPOCHS * IMAGES);
}

static void run_two_epochs(const char *kind, input_kind expected, bool late, bool uploads)
{
    fixture f;
    feed *batches;
    default_settings(&f.config, kind);
    open_session(&f, late);
    const backend_ops *own = f.e.device->ops;
    backend_ops without = *own;
    without.upload = NULL;
    if (!uploads)
        f.e.device->ops = &without;
    build(&f);
    make_all(&f.e);
    assert_int_equal(f.e.train_input.kind, expected);
    OK(feed_open(&batches, &f.e, true));
    feed_two_epochs(&f, batches);
    feed_close(&batches);
    assert_null(batches);
    f.e.device->ops = own;
    close_session(&f);
}

static void images_are_those_of_the_loader(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        run_two_epochs("synthetic", INPUT_RESIDENT, late, true);
        run_two_epochs("synthetic_host", INPUT_BYTES, late, true);
        run_two_epochs("synthetic_host", INPUT_BYTES, late, false);
    }
}

/* ---- other ways through the set ---- */

static void one_starts_anywhere(void **state)
{
    (void)state;
    const int starts[] = {4, 1, 2, 0, 5, 3};
    for (int k = 0; k < 2; k++) {
        fixture f;
        feed *batches;
        default_settings(&f.config, kinds[k]);
        open_session(&f, true);
        build(&f);
        make_all(&f.e);
        OK(feed_open(&batches, &f.e, true));
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
            image_log made = open_images(&f.e, 2 * BATCH);
            int start = starts[i], first = start / STEPS * IMAGES + start % STEPS * BATCH, seen = 0;
            OK(feed_seek(batches, start / STEPS, start % STEPS));
            for (int step = start; step < start + 2 && step < EPOCHS * STEPS; step++) {
                feed_batch batch;
                OK(feed_next(batches, &batch));
                assert_int_equal(batch.position, step % STEPS * BATCH);
                log_images(&made, &batch);
                seen += batch.images;
            }
            expect_images(&made, all_images + (size_t)first * PIXELS, seen);
        }
        feed_close(&batches);
        close_session(&f);
    }
}

static void mirror(float *image)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE / 2; x++)
            for (int c = 0; c < IMAGE_CHANNELS; c++) {
                float *left = &image[(y * SIDE + x) * IMAGE_CHANNELS + c],
                      *right = &image[(y * SIDE + SIDE - 1 - x) * IMAGE_CHANNELS + c], kept = *left;
                *left = *right;
                *right = kept;
            }
}

/* The test images: as they are, mirrored, and back. */
static void test_images_and_their_mirror_images(void **state)
{
    (void)state;
    static float expected[3 * TEST_IMAGES * PIXELS];
    for (int k = 0; k < 2; k++) {
        fixture f;
        feed *batches;
        int32_t order[TEST_IMAGES], labels[TEST_IMAGES], seen = 0;
        default_settings(&f.config, kinds[k]);
        open_session(&f, true);
        build(&f);
        OK(feed_open(&batches, &f.e, false));
        image_log made = open_images(&f.e, 3 * TEST_IMAGES);
        for (int32_t n = 0; n < TEST_IMAGES; n++)
            order[n] = n;
        for (int step = 0; step < f.e.test_plan.steps; step++) {
            feed_batch batch;
            OK(feed_next(batches, &batch));
            for (int view = 0; view < 3; view++) {
                float *images = expected + (size_t)(3 * seen + view * batch.images) * PIXELS;
                if (view > 0)
                    OK(feed_mirror(batches));
                log_images(&made, &batch);
                OK(augment_batch(&f.e.test_set, NULL, order + seen, seen, batch.images, DTYPE_F32, images, labels));
                for (int n = 0; n < batch.images && view == 1; n++)
                    mirror(images + (size_t)n * PIXELS);
            }
            assert_memory_equal(batch.labels, labels, (size_t)batch.images * sizeof *labels);
            seen += batch.images;
        }
        expect_images(&made, expected, 3 * TEST_IMAGES);
        feed_close(&batches);
        close_session(&f);
    }
}

static void mirror_images_of_the_host(void **state)
{
    (void)state;
    fixture f;
    feed *batches;
    feed_batch batch;
    static float expected[BATCH * PIXELS];
    static double got[BATCH * PIXELS];
    int32_t order[BATCH], labels[BATCH];
    default_settings(&f.config, "synthetic");
    f.config.run.device = DEVICE_CPU;
    open_session(&f, false);
    build(&f);
    assert_int_equal(f.e.test_input.kind, INPUT_REAL);
    OK(feed_open(&batches, &f.e, false));
    OK(feed_next(batches, &batch));
    for (int32_t n = 0; n < BATCH; n++)
        order[n] = n;
    OK(augment_batch(&f.e.test_set, NULL, order, 0, BATCH, DTYPE_F32, expected, labels));
    for (int view = 0; view < 2; view++) {
        OK(program_read(batch.step, &f.e.run, "input", got));
        for (int i = 0; i < BATCH * PIXELS; i++)
            assert_true(got[i] == (double)expected[i]);
        OK(feed_mirror(batches));
        for (int n = 0; n < BATCH; n++)
            mirror(expected + (size_t)n * PIXELS);
    }
    feed_close(&batches);
    close_session(&f);
}

/* The last of four ranks has a share of a training batch, but none of the last two test images. */
static void a_rank_without_an_image(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        fixture f;
        feed *batches;
        feed_batch batch;
        default_settings(&f.config, kinds[k]);
        open_session(&f, true);
        comm_info info = *f.e.info;
        info.rank = 3;
        info.size = 4;
        f.e.info = &info;
        build(&f);
        OK(feed_open(&batches, &f.e, false));
        for (int step = 0; step < 4; step++) { /* the stream is endless */
            OK(feed_next(batches, &batch));
            assert_int_equal(batch.images, step % 2 ? 0 : BATCH / 4);
            assert_true((batch.step != NULL) == (batch.images > 0));
            if (batch.step)
                check_labels(&f.e, &batch, f.e.test_set.labels + 3 * BATCH / 4);
        }
        feed_close(&batches);
        close_session(&f);
    }
}

/* ---- whole trainings ---- */

/* Weights, momentum and statistics after two epochs of captured steps, a step in two micro-batches. */
static char *train_two_epochs(const char *kind, bool late, size_t *bytes)
{
    fixture f;
    feed *batches;
    const double lr = 0.05;
    default_settings(&f.config, kind);
    f.config.train.accumulate = 2;
    open_session(&f, late);
    build(&f);
    OK(feed_open(&batches, &f.e, true));
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        OK(feed_seek(batches, epoch, 0));
        for (int step = 0; step < f.e.train_plan.micro_batches; step++) {
            feed_batch batch;
            OK(feed_next(batches, &batch));
            OK(program_write(batch.step, &f.e.run, "lr", &lr, sizeof lr));
            OK(program_run(&f.e.run, batch.step));
        }
    }
    OK(runtime_synchronize(&f.e.run));
    char *all = NULL;
    *bytes = 0;
    for (uint32_t i = 0; i < f.e.tensors.n_entries; i++) {
        const store_entry *entry = &f.e.tensors.entries[i];
        size_t more = tensor_bytes(&entry->desc);
        if (!store_is_saved(entry->name))
            continue;
        all = realloc(all, *bytes + more);
        OK(f.e.device->ops->read(f.e.device, all + *bytes, entry->memory, more));
        *bytes += more;
    }
    feed_close(&batches);
    close_session(&f);
    return all;
}

static void trainings_are_the_same(void **state)
{
    (void)state;
    size_t bytes, other_bytes;
    char *expected = train_two_epochs("synthetic", false, &bytes);
    assert_true(bytes > 10000);
    for (int late = 0; late < 2; late++) {
        char *got = train_two_epochs("synthetic_host", late, &other_bytes);
        assert_int_equal(other_bytes, bytes);
        assert_memory_equal(got, expected, bytes);
        free(got);
    }
    free(expected);
}

/* ---- which way, and failures ---- */

static input_kind chosen(const fixture *f, const char *kind, int64_t images, int32_t side)
{
    session e = f->e;
    step_input input;
    OK(source_find(&e.images.source, kind));
    e.train_images = images;
    e.step.model.image_height = e.step.model.image_width = side;
    OK(session_choose_input(&e, SPLIT_TRAIN, &input));
    assert_int_equal(input.set_images, images);
    assert_string_equal(input.set, "data/train");
    return input.kind;
}

/* The emulated GPU has 1 GiB. */
static void the_device_holds_what_fits(void **state)
{
    (void)state;
    fixture f;
    default_settings(&f.config, "synthetic");
    open_session(&f, false);
    assert_int_equal(chosen(&f, "cifar10", 50000, 32), INPUT_RESIDENT);
    assert_int_equal(chosen(&f, "cifar10", 90000, 32), INPUT_BYTES);
    assert_int_equal(chosen(&f, "synthetic", 1024, 224), INPUT_RESIDENT);
    assert_int_equal(chosen(&f, "synthetic", 2048, 224), INPUT_BYTES);
    assert_int_equal(chosen(&f, "synthetic_host", 10, 32), INPUT_BYTES);
    close_session(&f);
}

static void a_bad_label_is_told(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        fixture f;
        feed *batches;
        feed_batch batch;
        default_settings(&f.config, kinds[k]);
        open_session(&f, true);
        build(&f);
        f.e.test_set.labels[BATCH + 1] = 77777;
        OK(feed_open(&batches, &f.e, false));
        int status = feed_next(batches, &batch);
        if (status == 0)
            status = feed_next(batches, &batch);
        assert_int_equal(status, ERROR_DATA);
        assert_non_null(strstr(error_message(), "label 77777"));
        feed_close(&batches);
        close_session(&f);
    }
}

static void no_memory_for_what_is_on_its_way(void **state)
{
    (void)state;
    fixture f;
    feed *batches;
    default_settings(&f.config, "synthetic_host");
    open_session(&f, false);
    build(&f);
    emulated_machine machine = emulated_get_machine(), full = machine;
    full.memory = emulated_used() + BATCH * PIXELS;
    emulated_set_machine(&full);
    assert_int_equal(feed_open(&batches, &f.e, true), ERROR_MEMORY);
    assert_null(batches);
    assert_non_null(strstr(error_message(), "20 images on their way"));
    emulated_set_machine(&machine);
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_are_those_of_the_loader),
        cmocka_unit_test(one_starts_anywhere),
        cmocka_unit_test(test_images_and_their_mirror_images),
        cmocka_unit_test(mirror_images_of_the_host),
        cmocka_unit_test(a_rank_without_an_image),
        cmocka_unit_test(trainings_are_the_same),
        cmocka_unit_test(the_device_holds_what_fits),
        cmocka_unit_test(a_bad_label_is_told),
        cmocka_unit_test(no_memory_for_what_is_on_its_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

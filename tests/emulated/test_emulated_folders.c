/* Images of compressed files on a device with memory of its own. What comes through the ring into a program's input are
 * the bytes that a loader makes in the host's memory: for any number of threads, however late the device works. */
#include "../io/scratch.h"

#include "base/error.h"
#include "emulated.h"
#include "io/data/augment.h"
#include "io/image/encode.h"
#include "session/feed.h"

#include <sys/stat.h>

enum {
    CLASSES = 3,
    IMAGES = 27, /* a last batch of 7 */
    TEST_IMAGES = 13,
    BATCH = 10,
    THREADS = 3,
    EPOCHS = 2, /* of 32, then of 64 pixels */
    LARGEST = 64,
    MOST_BYTES = EPOCHS * IMAGES * LARGEST * LARGEST * IMAGE_CHANNELS
};

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

/* ---- the files ---- */

static void write_image(scratch *s, const char *split, int number)
{
    const int32_t height = 40 + number * 17 % 50, width = 40 + number * 29 % 60;
    const size_t values = (size_t)height * (size_t)width * IMAGE_CHANNELS;
    uint8_t *pixels = malloc(values), *bytes;
    size_t size;
    char path[64];
    assert_non_null(pixels);
    for (size_t i = 0; i < values; i++)
        pixels[i] = (uint8_t)(i / (size_t)width + i % (size_t)width * (size_t)(number + 1));
    OK(image_encode_jpeg(pixels, height, width, ENCODE_QUALITY, &bytes, &size));
    snprintf(path, sizeof path, "%s/%c/%03d.jpg", split, 'a' + number % CLASSES, number);
    scratch_write(s, path, bytes, size);
    free(bytes);
    free(pixels);
}

static void write_split(scratch *s, const char *split, int images)
{
    char path[64];
    mkdir(scratch_path(s, split), 0777);
    for (int label = 0; label < CLASSES; label++) {
        snprintf(path, sizeof path, "%s/%c", split, 'a' + label);
        mkdir(scratch_path(s, path), 0777);
    }
    for (int number = 0; number < images; number++)
        write_image(s, split, number);
}

/* ---- the session ---- */

typedef struct {
    comm *ranks;
    logger log;
    settings config;
    session e;
} fixture;

static void open_session(fixture *f, const scratch *s, bool late)
{
    settings *c = &f->config;
    settings_default(c);
    OK(settings_set(c, "model.network=cifarresnet8"));
    OK(settings_set(c, "data.kind=folders"));
    OK(settings_set(c, "data.image_size=32..64"));
    snprintf(c->data.path, sizeof c->data.path, "%s", s->folder);
    c->model.width = 4;
    c->model.student_width = 8;
    c->data.threads = THREADS;
    c->train.batch = c->eval.batch = BATCH;
    c->train.epochs = EPOCHS;
    c->train.seed = 5;
    c->run.device = DEVICE_CUDA;
    c->run.precision = PRECISION_FP32;
    c->run.threads = 1;
    OK(comm_open_self(&f->ranks));
    log_open(&f->log, 0, 1, "here");
    emulated_defer(late);
    OK(session_open(&f->e, c, &f->log, f->ranks, DATA_TRAIN | DATA_TEST));
    OK(session_build_training(&f->e));
    OK(session_build_evaluation(&f->e));
    OK(session_bind(&f->e));
    assert_int_equal(f->e.train_input.kind, INPUT_BYTES);
    assert_int_equal(f->e.test_input.kind, INPUT_BYTES);
    assert_int_equal(f->e.loader_threads, THREADS);
}

static void close_session(fixture *f)
{
    session_close(&f->e);
    comm_close(f->ranks);
    emulated_defer(false);
    assert_int_equal(emulated_used(), 0);
}

/* The same images in the host's memory, made by one thread. */
static void open_host(loader **host, const session *e, bool training)
{
    const settings *c = &e->config;
    const int32_t size = training ? e->images.sizes.last : e->images.eval_size;
    loader_options options = {
        .set = training ? &e->train_set : &e->test_set,
        .height = size,
        .width = size,
        .plan = training ? e->train_plan : e->test_plan,
        .seed = (uint64_t)c->train.seed,
        .order = {.kind = training ? IMAGE_ORDER_GLOBAL : IMAGE_ORDER_SET},
        .augment = training,
        .crop = {.scale = {c->data.crop_scale.value[0], c->data.crop_scale.value[1]},
                 .ratio = {c->data.crop_ratio.value[0], c->data.crop_ratio.value[1]}},
        .resize = e->images.resize_size,
        .content = LOADER_BYTES,
        .threads = 1,
    };
    if (training)
        options.sizes = e->images.sizes;
    OK(loader_open(host, &options));
}

/* ---- what comes ---- */

/* The bytes in the inputs of programs, kept on the device so that nothing waits for it in between. */
typedef struct {
    session *e;
    char *memory;
    size_t bytes;
} input_log;

static void keep(input_log *log, const feed_batch *batch)
{
    backend *device = log->e->device;
    const tensor_desc *desc;
    const void *values = program_value(batch->step, &log->e->run, "pixels", &desc);
    assert_true(log->bytes + tensor_bytes(desc) <= MOST_BYTES);
    OK(device->ops->copy(device, log->memory + log->bytes, values, tensor_bytes(desc)));
    log->bytes += tensor_bytes(desc);
}

static uint8_t expected[MOST_BYTES], got[MOST_BYTES];

/* Appends a batch of the host's. */
static void expect(const loader_batch *host, const feed_batch *batch, size_t *bytes)
{
    assert_int_equal(host->share.images, batch->images);
    assert_int_equal(host->share.position, batch->position);
    assert_memory_equal(host->labels, batch->labels, (size_t)batch->images * sizeof *host->labels);
    const size_t more = (size_t)host->share.images * (size_t)host->height * (size_t)host->width * IMAGE_CHANNELS;
    assert_true(*bytes + more <= MOST_BYTES);
    memcpy(expected + *bytes, host->pixels, more);
    *bytes += more;
}

static void expect_choices(const session *e, const loader_batch *host, const feed_batch *batch)
{
    double choices[BATCH * AUGMENT_CHOICE];
    OK(program_read(batch->step, &e->run, "choice", choices));
    for (int i = 0; i < batch->images * AUGMENT_CHOICE; i++)
        assert_true(choices[i] == host->choices[i]);
}

static void feed_and_compare(fixture *f, bool training, int64_t batches)
{
    feed *device;
    loader *host;
    size_t bytes = 0;
    input_log log = {.e = &f->e, .memory = f->e.device->ops->alloc(f->e.device, MOST_BYTES)};
    assert_non_null(log.memory);
    OK(feed_open(&device, &f->e, training));
    open_host(&host, &f->e, training);
    OK(feed_seek(device, 0, 0));
    for (int64_t i = 0; i < batches; i++) {
        feed_batch batch;
        loader_batch same;
        OK(feed_next(device, &batch));
        keep(&log, &batch);
        OK(loader_next(host, &same));
        expect(&same, &batch, &bytes);
        if (i % 2)
            expect_choices(&f->e, &same, &batch);
    }
    assert_int_equal(log.bytes, bytes);
    OK(f->e.device->ops->read(f->e.device, got, log.memory, bytes));
    assert_memory_equal(got, expected, bytes);
    f->e.device->ops->free(f->e.device, log.memory);
    loader_close(&host);
    feed_close(&device);
}

static void bytes_are_those_of_the_host(void **state)
{
    scratch *s = *state;
    write_split(s, "train", IMAGES);
    write_split(s, "val", TEST_IMAGES);
    for (int late = 0; late < 2; late++) {
        fixture f;
        open_session(&f, s, late);
        feed_and_compare(&f, true, EPOCHS * f.e.train_plan.micro_batches);
        feed_and_compare(&f, false, f.e.test_plan.micro_batches);
        close_session(&f);
    }
}

/* The message comes from a thread of the loader, while earlier batches are on their way. */
static void a_bad_file_is_told(void **state)
{
    scratch *s = *state;
    fixture f;
    feed *device;
    feed_batch batch;
    int status = 0;
    write_split(s, "train", IMAGES);
    write_split(s, "val", TEST_IMAGES);
    open_session(&f, s, true);
    f.e.config.data.on_bad = BAD_FAIL;
    assert_int_equal(unlink(scratch_path(s, "val/c/011.jpg")), 0); /* the last one */
    OK(feed_open(&device, &f.e, false));
    for (int i = 0; i < 2 && status == 0; i++)
        status = feed_next(device, &batch);
    assert_int_equal(status, ERROR_FILE);
    assert_contains(error_message(), "val/c/011.jpg: cannot open");
    feed_close(&device);
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_are_those_of_the_host, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_bad_file_is_told, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A source of its own, whose images lie on disk, one per file and of varying size: what the loader makes of them, for
 * any number of ranks and starting point, and what a file that is gone leads to. */
#include "scratch.h"

#include "base/error.h"
#include "base/rng.h"
#include "io/data/augment.h"
#include "io/data/loader.h"
#include "io/image/crop.h"

enum { IMAGES = 23, SIDE = 6, PIXELS = SIDE * SIDE * IMAGE_CHANNELS, MOST_BYTES = 16 * 16 * IMAGE_CHANNELS };

static uint8_t shade(int32_t index, int32_t y, int32_t x, int32_t c)
{
    return (uint8_t)(index * 37 + y * 11 + x * 5 + c * 83);
}

static void size_of(int32_t index, int32_t *height, int32_t *width)
{
    *height = 5 + index % 7;
    *width = 4 + index * 3 % 11;
}

struct image_reader {
    const char *folder;
    int32_t height, width;
    uint8_t bytes[MOST_BYTES];
};

static int readers;

static int open_reader(image_reader **reader, const image_set *set)
{
    *reader = calloc(1, sizeof **reader);
    assert_non_null(*reader);
    (*reader)->folder = set->own;
    readers++;
    return 0;
}

static void close_reader(image_reader *reader)
{
    readers--;
    free(reader);
}

static int load(image_reader *r, int32_t index, int32_t *height, int32_t *width)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%d", r->folder, index);
    FILE *file = fopen(path, "rb");
    CHECK(file, ERROR_FILE, "%s: gone", path);
    size_t got = fread(r->bytes, 1, sizeof r->bytes, file);
    fclose(file);
    size_of(index, &r->height, &r->width);
    *height = r->height;
    *width = r->width;
    CHECK(got == (size_t)r->height * (size_t)r->width * IMAGE_CHANNELS, ERROR_DATA, "%s: %zu bytes", path, got);
    return 0;
}

/* The pixel of the image that a place of a view shows: the nearest one. */
static int32_t row_of(const image_view *view, int32_t y)
{
    return view->region.top + (y + view->window.top) * view->region.height / view->height;
}

static int32_t column_of(const image_view *view, int32_t x)
{
    return view->region.left + (x + view->window.left) * view->region.width / view->width;
}

static int render(image_reader *r, const image_view *view, uint8_t *pixels)
{
    for (int32_t y = 0; y < view->window.height; y++)
        for (int32_t x = 0; x < view->window.width; x++) {
            const size_t from = (size_t)(row_of(view, y) * r->width + column_of(view, x));
            memcpy(pixels, r->bytes + from * IMAGE_CHANNELS, IMAGE_CHANNELS);
            pixels += IMAGE_CHANNELS;
        }
    return 0;
}

static void describe_image(const image_set *set, int32_t index, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s/%d", (const char *)set->own, index);
}

static void close_set(image_set *set)
{
    free(set->own);
}

static const image_set_ops ops = {.reader_open = open_reader,
                                  .load = load,
                                  .render = render,
                                  .reader_close = close_reader,
                                  .describe = describe_image,
                                  .set_close = close_set};

static void write_image(scratch *s, int32_t index)
{
    uint8_t bytes[MOST_BYTES], *at = bytes;
    char name[32];
    int32_t height, width;
    size_of(index, &height, &width);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++)
            for (int32_t c = 0; c < IMAGE_CHANNELS; c++)
                *at++ = shade(index, y, x, c);
    snprintf(name, sizeof name, "%d", index);
    scratch_write(s, name, bytes, (size_t)(at - bytes));
}

static int open_files(image_set *set, const data_source *source, const source_request *request)
{
    *set = (image_set){.images = IMAGES,
                       .classes = source->classes,
                       .height = SIZE_VARIES,
                       .width = SIZE_VARIES,
                       .ops = &ops,
                       .own = strdup(request->path)};
    set->labels = malloc(IMAGES * sizeof *set->labels);
    for (int32_t i = 0; i < IMAGES; i++)
        set->labels[i] = i % source->classes;
    return 0;
}

static const source_driver driver = {.open = open_files};
static const data_source files = {.name = "files",
                                  .title = "files",
                                  .classes = 3,
                                  .side = SIZE_VARIES,
                                  .mean = {0.5, 0.4, 0.3},
                                  .std = {0.2, 0.3, 0.4},
                                  .images = {IMAGES, IMAGES},
                                  .wants = "a file per image",
                                  .driver = &driver};

static image_set open_set(scratch *s)
{
    image_set set;
    for (int32_t i = 0; i < IMAGES; i++)
        write_image(s, i);
    assert_int_equal(source_open(&set, &files, &(source_request){.path = s->folder}), 0);
    return set;
}

static loader_options options_of(const image_set *set, int32_t rank, int32_t ranks, loader_content content)
{
    loader_options o = {.set = set,
                        .height = SIDE,
                        .width = SIDE,
                        .seed = 9,
                        .order = {.kind = IMAGE_ORDER_GLOBAL},
                        .crop = {.scale = {0.3, 1}, .ratio = {0.75, 1.3333}},
                        .resize = SIDE + 2,
                        .threads = 3,
                        .augment = true,
                        .content = content,
                        .real = DTYPE_F32};
    const batch_options batches = {
        .images = IMAGES, .batch = 6, .accumulate = 1, .rank = rank, .ranks = ranks, .training = true};
    assert_int_equal(batch_plan_make(&o.plan, &batches), 0);
    return o;
}

/* A view of image `index` by the definition. */
static void expect_pixels(int32_t index, const image_view *view, uint8_t *pixels)
{
    for (int32_t y = 0; y < view->window.height; y++)
        for (int32_t x = 0; x < view->window.width; x++)
            for (int32_t c = 0; c < IMAGE_CHANNELS; c++)
                *pixels++ = shade(index, row_of(view, y), column_of(view, x), c);
}

static image_view random_view(int32_t index, int64_t epoch, int32_t position, const crop_range *range)
{
    int32_t height, width;
    size_of(index, &height, &width);
    return (image_view){
        .region = crop_random(range, height, width, 9, rng_stream(RNG_CROP, (uint64_t)epoch), (uint32_t)position),
        .height = SIDE,
        .width = SIDE,
        .window = {.height = SIDE, .width = SIDE}};
}

static void check_image(const loader_options *o, const loader_batch *batch, int32_t k, int64_t epoch, bool real)
{
    const image_set *set = o->set;
    int32_t order[IMAGES];
    uint8_t expected[PIXELS];
    float normalised[PIXELS];
    const int32_t position = batch->share.position + k;
    rng_permutation(9, (uint64_t)epoch, IMAGES, order);
    const bool flip = augment_choose((augment_key){9, (int32_t)epoch}, position).flip;
    const image_view view = random_view(order[position], epoch, position, &o->crop);
    expect_pixels(order[position], &view, expected);
    assert_int_equal(batch->labels[k], order[position] % 3);
    augment_normalise(set, expected, SIDE, SIDE, flip, DTYPE_F32, normalised);
    if (real) {
        assert_memory_equal((const float *)batch->pixels + k * PIXELS, normalised, sizeof normalised);
        return;
    }
    const int32_t *choice = batch->choices + k * AUGMENT_CHOICE;
    assert_memory_equal((const uint8_t *)batch->pixels + k * PIXELS, expected, sizeof expected);
    assert_true(choice[0] == k && choice[1] == AUGMENT_PADDING && choice[2] == AUGMENT_PADDING);
    assert_int_equal(choice[AUGMENT_FLIP], flip);
}

static void every_rank_and_start(void **state)
{
    image_set set = open_set(*state);
    for (loader_content content = LOADER_REAL; content <= LOADER_BYTES; content++)
        for (int32_t ranks = 1; ranks <= 3; ranks++)
            for (int32_t rank = 0; rank < ranks; rank++) {
                loader *l;
                loader_batch batch;
                const loader_options o = options_of(&set, rank, ranks, content);
                assert_int_equal(loader_open(&l, &o), 0);
                assert_int_equal(loader_seek(l, rank, 1), 0);
                for (int i = 0; i < 7; i++) {
                    assert_int_equal(loader_next(l, &batch), 0);
                    for (int32_t k = 0; k < batch.share.images; k++)
                        check_image(&o, &batch, k, batch.epoch, content == LOADER_REAL);
                }
                loader_close(&l);
            }
    assert_int_equal(readers, 0);
    image_set_close(&set);
}

static void a_file_is_gone(void **state)
{
    scratch *s = *state;
    image_set set = open_set(s);
    loader *l;
    loader_batch batch;
    const loader_options o = options_of(&set, 0, 1, LOADER_BYTES);
    assert_int_equal(unlink(scratch_path(s, "17")), 0);
    assert_int_equal(loader_open(&l, &o), 0);
    int status = 0;
    for (int64_t i = 0; i < o.plan.micro_batches && status == 0; i++)
        status = loader_next(l, &batch);
    assert_int_equal(status, ERROR_FILE);
    assert_contains(error_message(), "/17: gone");
    loader_close(&l);
    image_set_close(&set);
}

/* Image 17 gives way to image 18, wherever it comes. */
static void a_bad_image_is_replaced(void **state)
{
    scratch *s = *state;
    image_set set = open_set(s);
    loader *l;
    loader_batch batch;
    loader_options o = options_of(&set, 0, 1, LOADER_BYTES);
    o.augment = false;
    o.order.kind = IMAGE_ORDER_SET;
    o.substitutes = true;
    assert_int_equal(unlink(scratch_path(s, "17")), 0);
    assert_int_equal(loader_open(&l, &o), 0);
    for (int64_t i = 0; i < 2 * o.plan.micro_batches; i++) {
        assert_int_equal(loader_next(l, &batch), 0);
        for (int32_t k = 0; k < batch.share.images; k++) {
            const int32_t wanted = batch.share.position + k, index = wanted == 17 ? 18 : wanted;
            uint8_t expected[PIXELS];
            int32_t height, width;
            size_of(index, &height, &width);
            const image_view view = crop_center(height, width, o.resize, SIDE);
            expect_pixels(index, &view, expected);
            assert_memory_equal((const uint8_t *)batch.pixels + k * PIXELS, expected, sizeof expected);
            assert_int_equal(batch.labels[k], index % 3);
        }
    }
    assert_int_equal(loader_describe(l).bad_images, 1);
    loader_close(&l);
    image_set_close(&set);
}

static void too_many_are_bad(void **state)
{
    scratch *s = *state;
    image_set set = open_set(s);
    loader *l;
    loader_batch batch;
    loader_options o = options_of(&set, 0, 1, LOADER_REAL);
    o.substitutes = true;
    assert_int_equal(unlink(scratch_path(s, "17")), 0);
    assert_int_equal(unlink(scratch_path(s, "3")), 0);
    assert_int_equal(loader_open(&l, &o), 0);
    int status = 0;
    for (int64_t i = 0; i < o.plan.micro_batches && status == 0; i++)
        status = loader_next(l, &batch);
    assert_int_equal(status, ERROR_FILE);
    assert_contains(error_message(), "bad image 2 of 23");
    loader_close(&l);
    image_set_close(&set);
}

/* Images grow from epoch to epoch, each size with the bytes of its own. */
static void sizes_grow(void **state)
{
    image_set set = open_set(*state);
    loader *l;
    loader_batch batch;
    loader_options o = options_of(&set, 0, 1, LOADER_BYTES);
    o.height = o.width = 70;
    o.resize = 80;
    o.sizes = (image_sizes){.first = 6, .last = 70, .epochs = 4};
    const int32_t expected[] = {6, 38, 70, 70, 70};
    assert_int_equal(loader_open(&l, &o), 0);
    for (int epoch = 0; epoch < 5; epoch++) {
        assert_int_equal(image_sizes_at(&o.sizes, epoch), expected[epoch]);
        for (int64_t i = 0; i < o.plan.micro_batches; i++) {
            assert_int_equal(loader_next(l, &batch), 0);
            assert_int_equal(batch.height, expected[epoch]);
            assert_int_equal(batch.width, expected[epoch]);
        }
    }
    loader_close(&l);
    image_set_close(&set);
}

static void what_does_not_fit(void **state)
{
    char text[IMAGE_SET_IDENTITY_BYTES];
    image_set set = open_set(*state);
    loader *l;
    const loader_options o = options_of(&set, 0, 1, LOADER_CHOICES);
    assert_int_equal(loader_open(&l, &o), ERROR_INTERNAL);
    assert_null(l);
    image_set_identity(&set, text);
    assert_contains(text, "23 images of varying size, 3 classes");
    assert_null(image_set_class_name(&set, 0));
    image_set_close(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_rank_and_start, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_file_is_gone, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_bad_image_is_replaced, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(too_many_are_bad, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(sizes_grow, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Augmentation against a plain rewriting of its definition, and the loader's promises: the same images for any number
 * of ranks and any starting point, each image exactly once an epoch, the same whatever batches hold of it. */
#include "random_set.h"
#include "scratch.h"

#include "base/error.h"
#include "base/rng.h"
#include "io/data/augment.h"
#include "io/data/loader.h"

enum { HEIGHT = 11, WIDTH = 9, PIXELS = HEIGHT * WIDTH * 3 };

static image_set make_set(int32_t images)
{
    image_set set;
    assert_int_equal(random_set(&set, images, HEIGHT, WIDTH, 10, 3), 0);
    return set;
}

/* The definition, written out: pad, crop, flip, normalise. */
static double expected_value(const image_set *set, int32_t image, augment_choice choice, int y, int x, int c)
{
    static uint8_t padded[HEIGHT + 2 * AUGMENT_PADDING][WIDTH + 2 * AUGMENT_PADDING];
    memset(padded, 0, sizeof padded);
    for (int i = 0; i < HEIGHT; i++)
        for (int j = 0; j < WIDTH; j++)
            padded[i + AUGMENT_PADDING][j + AUGMENT_PADDING] = set->pixels[((image * HEIGHT + i) * WIDTH + j) * 3 + c];
    uint8_t byte = padded[y + choice.top][(choice.flip ? WIDTH - 1 - x : x) + choice.left];
    return (byte / 255.0 - (double)set->mean[c]) / (double)set->std[c];
}

static void check_image(const image_set *set, int32_t image, augment_choice choice, const double *wide,
                        const float *narrow)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++) {
                double value = expected_value(set, image, choice, y, x, c);
                assert_true(wide[(y * WIDTH + x) * 3 + c] == value);
                assert_true(narrow[(y * WIDTH + x) * 3 + c] == (float)value);
            }
}

static void test_augment(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    image_set set = make_set(20);
    static double wide[COUNT * PIXELS];
    static float narrow[COUNT * PIXELS];
    int32_t order[COUNT], labels[COUNT], tops[9] = {0}, lefts[9] = {0}, flips = 0;
    for (int i = 0; i < COUNT; i++)
        order[i] = i * 7 % 20;
    const augment_key key = {123, 4};
    assert_int_equal(augment_batch(&set, &key, order, 1000, COUNT, DTYPE_F64, wide, labels), 0);
    assert_int_equal(augment_batch(&set, &key, order, 1000, COUNT, DTYPE_F32, narrow, labels), 0);
    for (int i = 0; i < COUNT; i++) {
        augment_choice choice = augment_choose(key, 1000 + i);
        assert_in_range(choice.top, 0, 8);
        assert_in_range(choice.left, 0, 8);
        tops[choice.top]++;
        lefts[choice.left]++;
        flips += choice.flip;
        assert_int_equal(labels[i], set.labels[order[i]]);
        check_image(&set, order[i], choice, wide + i * PIXELS, narrow + i * PIXELS);
    }
    for (int i = 0; i < 9; i++) { /* 33 each on average, 5.4 the standard deviation */
        assert_in_range(tops[i], 10, 60);
        assert_in_range(lefts[i], 10, 60);
    }
    assert_in_range(flips, 110, 190);

    const augment_choice whole = {AUGMENT_PADDING, AUGMENT_PADDING, false};
    assert_int_equal(augment_batch(&set, NULL, order, 0, 5, DTYPE_F64, wide, labels), 0);
    assert_int_equal(augment_batch(&set, NULL, order, 0, 5, DTYPE_F32, narrow, labels), 0);
    for (int i = 0; i < 5; i++)
        check_image(&set, order[i], whole, wide + i * PIXELS, narrow + i * PIXELS);
    order[1] = 20;
    assert_int_equal(augment_batch(&set, NULL, order, 0, 5, DTYPE_F32, narrow, labels), ERROR_DATA);
    assert_contains(error_message(), "image 20");
    image_set_close(&set);
}

static batch_plan make_plan(batch_options options)
{
    batch_plan plan;
    assert_int_equal(batch_plan_make(&plan, &options), 0);
    return plan;
}

static loader_options training(const image_set *set, int32_t batch, int32_t rank, int32_t ranks)
{
    return (loader_options){
        .set = set,
        .height = HEIGHT,
        .width = WIDTH,
        .plan = make_plan((batch_options){
            .images = set->images, .batch = batch, .accumulate = 1, .rank = rank, .ranks = ranks, .training = true}),
        .seed = 77,
        .order = {.kind = IMAGE_ORDER_GLOBAL},
        .threads = 1 + rank,
        .augment = true,
        .real = DTYPE_F32};
}

static loader_options evaluation(const image_set *set, int32_t batch)
{
    return (loader_options){
        .set = set,
        .height = HEIGHT,
        .width = WIDTH,
        .plan = make_plan((batch_options){.images = set->images, .batch = batch, .accumulate = 1, .ranks = 1}),
        .threads = 2,
        .real = DTYPE_F32};
}

static void choose_rank(loader_options *options, int32_t rank, int32_t ranks)
{
    batch_options changed = options->plan.options;
    changed.rank = rank;
    changed.ranks = ranks;
    options->threads = 1 + (rank + ranks) % 3;
    options->plan = make_plan(changed);
}

/* All images and labels of `epochs` epochs in global order, put together from the ranks' shares. */
static void gather(loader_options options, int32_t size, int epochs, float *pixels, int32_t *labels)
{
    const int32_t images = options.set->images;
    for (int32_t rank = 0; rank < size; rank++) {
        loader *l;
        choose_rank(&options, rank, size);
        assert_int_equal(loader_open(&l, &options), 0);
        const int64_t steps = options.plan.steps;
        for (int64_t step = 0; step < epochs * steps; step++) {
            loader_batch batch;
            assert_int_equal(loader_next(l, &batch), 0);
            assert_int_equal(batch.epoch, step / steps);
            assert_int_equal(batch.index, step % steps);
            assert_int_equal((uintptr_t)batch.pixels % 64, 0);
            size_t at = (size_t)(batch.epoch * images + batch.share.position), count = (size_t)batch.share.images;
            memcpy(pixels + at * PIXELS, batch.pixels, count * PIXELS * sizeof *pixels);
            memcpy(labels + at, batch.labels, count * sizeof *labels);
        }
        loader_close(&l);
        assert_null(l);
    }
}

static void test_ranks(void **state)
{
    (void)state;
    enum { IMAGES = 53, EPOCHS = 2, ALL = IMAGES * EPOCHS };
    image_set set = make_set(IMAGES);
    static float one[ALL * PIXELS], many[ALL * PIXELS];
    int32_t labels_one[ALL], labels_many[ALL];
    gather(training(&set, 10, 0, 1), 1, EPOCHS, one, labels_one);
    for (int epoch = 0; epoch < EPOCHS; epoch++) { /* what the order and the augmentation promise */
        int32_t order[IMAGES];
        static float expected[IMAGES * PIXELS];
        int32_t labels[IMAGES];
        rng_permutation(77, (uint64_t)epoch, IMAGES, order);
        const augment_key key = {77, epoch};
        assert_int_equal(augment_batch(&set, &key, order, 0, IMAGES, DTYPE_F32, expected, labels), 0);
        assert_memory_equal(expected, one + epoch * IMAGES * PIXELS, sizeof expected);
        assert_memory_equal(labels, labels_one + epoch * IMAGES, sizeof labels);
    }
    for (int32_t size = 2; size <= 3; size++) {
        memset(many, 0, sizeof many);
        gather(training(&set, 10, 0, size), size, EPOCHS, many, labels_many);
        assert_memory_equal(one, many, sizeof one);
        assert_memory_equal(labels_one, labels_many, sizeof labels_one);
    }
    gather(evaluation(&set, 10), 1, 1, one, labels_one);
    assert_memory_equal(labels_one, set.labels, IMAGES * sizeof *labels_one);
    gather(evaluation(&set, 10), 4, 1, many, labels_many); /* the last batch, of 3, leaves rank 3 without an image */
    assert_memory_equal(one, many, IMAGES * PIXELS * sizeof *one);
    assert_memory_equal(labels_one, labels_many, IMAGES * sizeof *labels_one);
    image_set_close(&set);
}

static const image_order orders[] = {{.kind = IMAGE_ORDER_SET},
                                     {.kind = IMAGE_ORDER_GLOBAL},
                                     {.kind = IMAGE_ORDER_BLOCK, .block = 7, .window = 3},
                                     {.kind = IMAGE_ORDER_BLOCK, .block = 4096, .window = 1}};

/* Images carry their index in the first pixels, so that they can be told apart. */
static void test_once_each(void **state)
{
    (void)state;
    enum { IMAGES = 1000 };
    image_set set = make_set(IMAGES);
    for (int i = 0; i < IMAGES; i++) {
        set.pixels[i * PIXELS] = (uint8_t)(i % 256);
        set.pixels[i * PIXELS + 1] = (uint8_t)(i / 256);
    }
    for (size_t kind = 0; kind < sizeof orders / sizeof orders[0]; kind++)
        for (int drop_last = 0; drop_last < 2; drop_last++) {
            int seen[IMAGES] = {0}, total = 0;
            for (int rank = 0; rank < 4; rank++) {
                batch_options plan = {.images = IMAGES, .batch = 64, .accumulate = 1, .rank = rank, .ranks = 4};
                plan.drop_last = drop_last;
                loader_options options = {.set = &set,
                                          .height = HEIGHT,
                                          .width = WIDTH,
                                          .plan = make_plan(plan),
                                          .order = orders[kind],
                                          .threads = 1 + rank,
                                          .real = DTYPE_F64};
                loader *l;
                assert_int_equal(loader_open(&l, &options), 0);
                assert_int_equal(options.plan.steps, drop_last ? 15 : 16);
                for (int step = 0; step < options.plan.steps; step++) {
                    loader_batch batch;
                    assert_int_equal(loader_next(l, &batch), 0);
                    for (int i = 0; i < batch.share.images; i++) {
                        const double *pixel = (const double *)batch.pixels + i * PIXELS;
                        double low = (pixel[0] * (double)set.std[0] + (double)set.mean[0]) * 255;
                        double high = (pixel[1] * (double)set.std[1] + (double)set.mean[1]) * 255;
                        seen[(int)(low + 0.5) + 256 * (int)(high + 0.5)]++;
                    }
                    total += batch.share.images;
                }
                loader_close(&l);
            }
            assert_int_equal(total, drop_last ? 960 : 1000);
            for (int i = 0; i < IMAGES; i++)
                assert_true(seen[i] == 1 || (drop_last && seen[i] == 0));
        }
    image_set_close(&set);
}

static void test_seek(void **state)
{
    (void)state;
    enum { IMAGES = 53, EPOCHS = 3, BATCH = 10, STEPS = 6 };
    image_set set = make_set(IMAGES);
    static float one[EPOCHS * IMAGES * PIXELS];
    int32_t labels[EPOCHS * IMAGES];
    loader_options options = training(&set, BATCH, 0, 1);
    gather(options, 1, EPOCHS, one, labels);
    loader *l;
    assert_int_equal(loader_open(&l, &options), 0);
    assert_int_equal(options.plan.steps, STEPS);
    for (int start = EPOCHS * STEPS - 1; start >= 0; start--) {
        assert_int_equal(loader_seek(l, start / STEPS, start % STEPS), 0);
        for (int ahead = 0; ahead < 1 + start % 7 && start + ahead < EPOCHS * STEPS; ahead++) {
            loader_batch batch;
            assert_int_equal(loader_next(l, &batch), 0);
            int step = start + ahead;
            assert_true(batch.epoch == step / STEPS && batch.index == step % STEPS);
            size_t at = (size_t)(batch.epoch * IMAGES + batch.index * BATCH), count = (size_t)batch.share.images;
            assert_memory_equal(batch.pixels, one + at * PIXELS, count * PIXELS * sizeof *one);
            assert_memory_equal(batch.labels, labels + at, count * sizeof *labels);
        }
    }
    loader_batch batch;
    assert_int_equal(loader_seek(l, 1, STEPS), 0); /* the end of an epoch is the beginning of the next */
    assert_int_equal(loader_next(l, &batch), 0);
    assert_true(batch.epoch == 2 && batch.index == 0);
    assert_int_equal(loader_seek(l, 0, STEPS + 1), ERROR_INTERNAL);
    assert_int_equal(loader_seek(l, -1, 0), ERROR_INTERNAL);
    loader_close(&l);
    loader_close(&l);
    image_set_close(&set);
}

/* What an image's choice and bytes come to, by the definition and augment_table. */
static void check_made(const image_set *set, const uint8_t *image, const int32_t *choice, const float *expected)
{
    static float table[256][3];
    augment_table(set, DTYPE_F32, table);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++) {
                int row = y + choice[1] - AUGMENT_PADDING,
                    column = (choice[3] ? WIDTH - 1 - x : x) + choice[2] - AUGMENT_PADDING;
                bool inside = row >= 0 && row < HEIGHT && column >= 0 && column < WIDTH;
                float value = table[inside ? image[(row * WIDTH + column) * 3 + c] : 0][c];
                assert_memory_equal(&value, &expected[(y * WIDTH + x) * 3 + c], sizeof value);
            }
}

/* The share of the batch, made from what it holds, is that of the loader of real images. */
static void check_batch(const image_set *set, const loader_batch *batch, loader_content content,
                        const loader_batch *real)
{
    assert_true(batch->share.images == real->share.images && batch->share.position == real->share.position);
    assert_true(batch->epoch == real->epoch && batch->index == real->index);
    assert_memory_equal(batch->labels, real->labels, (size_t)real->share.images * sizeof *real->labels);
    assert_true((batch->pixels != NULL) == (content == LOADER_BYTES));
    for (int32_t k = 0; k < batch->share.images; k++) {
        const int32_t *choice = batch->choices + k * AUGMENT_CHOICE;
        const uint8_t *source = content == LOADER_BYTES ? batch->pixels : set->pixels;
        if (content == LOADER_BYTES)
            assert_int_equal(choice[0], k);
        check_made(set, source + choice[0] * PIXELS, choice, (const float *)real->pixels + k * PIXELS);
    }
}

static void compare_contents(const loader_options *options, loader_content content, int epochs)
{
    loader *l, *real;
    loader_options other = *options;
    other.content = content;
    assert_int_equal(loader_open(&real, options), 0);
    assert_int_equal(loader_open(&l, &other), 0);
    for (int step = 0; step < epochs * options->plan.steps; step++) {
        loader_batch batch, expected;
        assert_int_equal(loader_next(l, &batch), 0);
        assert_int_equal(loader_next(real, &expected), 0);
        assert_null(expected.choices);
        check_batch(options->set, &batch, content, &expected);
    }
    loader_close(&l);
    loader_close(&real);
}

static void test_contents(void **state)
{
    (void)state;
    image_set set = make_set(53);
    for (int32_t rank = 0; rank < 2; rank++)
        for (int plain = 0; plain < 2; plain++) {
            loader_options options = training(&set, 10, rank, 2);
            options.augment = !plain;
            options.order.kind = plain ? IMAGE_ORDER_SET : IMAGE_ORDER_GLOBAL;
            compare_contents(&options, LOADER_CHOICES, 2);
            compare_contents(&options, LOADER_BYTES, 2);
        }
    image_set_close(&set);
}

/* Memory that is counted; the `refused`-th piece is not given. */
typedef struct {
    int given, taken_back, refused;
} counted_memory;

static void *counted_alloc(void *context, size_t bytes)
{
    counted_memory *m = context;
    return ++m->given == m->refused ? NULL : aligned_alloc(64, bytes);
}

static void counted_free(void *context, void *memory)
{
    counted_memory *m = context;
    assert_non_null(memory);
    m->taken_back++;
    free(memory);
}

static void test_memory(void **state)
{
    (void)state;
    image_set set = make_set(30);
    for (loader_content content = LOADER_REAL; content <= LOADER_CHOICES; content++) {
        counted_memory memory = {0};
        loader_options options = training(&set, 10, 0, 1);
        options.content = content;
        options.memory = (loader_memory){counted_alloc, counted_free, &memory};
        loader *l;
        loader_batch batch;
        assert_int_equal(loader_open(&l, &options), 0);
        assert_int_equal(loader_next(l, &batch), 0);
        loader_close(&l);
        assert_int_equal(memory.given > 0, content != LOADER_CHOICES);
        assert_int_equal(memory.taken_back, memory.given);
        int slots = memory.given;
        for (int refused = 1; refused <= slots; refused++) {
            memory = (counted_memory){.refused = refused};
            assert_int_equal(loader_open(&l, &options), ERROR_MEMORY);
            assert_null(l);
            assert_int_equal(memory.taken_back, memory.given - 1);
        }
    }
    image_set_close(&set);
}

/* One batch larger than the set; and a plan for another set. */
static void test_plans(void **state)
{
    (void)state;
    image_set set = make_set(53), other = make_set(54);
    loader *l;
    loader_batch batch;
    loader_options options = training(&set, 100, 0, 1);
    assert_int_equal(loader_open(&l, &options), 0);
    assert_int_equal(loader_next(l, &batch), 0);
    assert_int_equal(batch.share.images, 53);
    loader_close(&l);
    options.set = &other;
    assert_int_equal(loader_open(&l, &options), ERROR_INTERNAL);
    assert_null(l);
    image_set_close(&set);
    image_set_close(&other);
}

static void test_thread_error(void **state)
{
    (void)state;
    image_set set = make_set(30);
    set.labels[25] = 10;
    loader_options options = evaluation(&set, 10);
    loader *l;
    assert_int_equal(loader_open(&l, &options), 0);
    loader_batch batch;
    assert_int_equal(loader_next(l, &batch), 0);
    assert_int_equal(loader_next(l, &batch), 0);
    for (int again = 0; again < 2; again++) {
        error_set(ERROR_USAGE, "something else");
        assert_int_equal(loader_next(l, &batch), ERROR_DATA);
        assert_contains(error_message(), "image 25 has label 10");
    }
    assert_int_equal(loader_seek(l, 0, 1), 0);
    assert_int_equal(loader_next(l, &batch), 0);
    assert_int_equal(batch.labels[9], set.labels[19]);
    loader_close(&l);
    options.content = LOADER_CHOICES;
    assert_int_equal(loader_open(&l, &options), 0);
    assert_int_equal(loader_seek(l, 0, 2), 0);
    assert_int_equal(loader_next(l, &batch), ERROR_DATA);
    assert_contains(error_message(), "image 25 has label 10");
    loader_close(&l);
    image_set_close(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_augment),  cmocka_unit_test(test_ranks),  cmocka_unit_test(test_once_each),
        cmocka_unit_test(test_seek),     cmocka_unit_test(test_plans),  cmocka_unit_test(test_thread_error),
        cmocka_unit_test(test_contents), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The source of class folders by itself: order and labels, which are those of torchvision's ImageFolder, a limit, what
 * makes it another set, and files and folders that are not as they should be. */
#include "scratch.h"

#include "base/error.h"
#include "io/data/source.h"
#include "io/image/encode.h"

#include <sys/stat.h>

enum { HEIGHT = 12, WIDTH = 17, PIXELS = HEIGHT * WIDTH * IMAGE_CHANNELS };

static void make_folders(scratch *s, const char *path)
{
    char name[64];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
        mkdir(scratch_path(s, name), 0777);
    }
}

static void make_pixels(uint8_t pixels[PIXELS], int shade)
{
    for (int i = 0; i < PIXELS; i++)
        pixels[i] = (uint8_t)(i * 7 + shade * 31);
}

/* An image of the shade; the ending says the format. */
static void write_image(scratch *s, const char *path, int shade)
{
    uint8_t pixels[PIXELS], *bytes = NULL;
    size_t size;
    make_pixels(pixels, shade);
    make_folders(s, path);
    const bool png = strstr(path, ".png");
    assert_int_equal(png ? image_encode_png(pixels, HEIGHT, WIDTH, &bytes, &size)
                         : image_encode_jpeg(pixels, HEIGHT, WIDTH, ENCODE_QUALITY, &bytes, &size),
                     0);
    scratch_write(s, path, bytes, size);
    free(bytes);
}

static int try_open(image_set *set, const char *path, data_split split, int32_t limit)
{
    const data_source *source;
    assert_int_equal(source_find(&source, "folders"), 0);
    return source_open(set, source, &(source_request){.path = path, .split = split, .limit = limit});
}

static image_set open_set(scratch *s, const char *name, data_split split, int32_t limit)
{
    image_set set;
    if (try_open(&set, scratch_path(s, name), split, limit) < 0)
        fail_msg("%s", error_message());
    return set;
}

static void expect_image(const image_set *set, int32_t index, const char *path, int32_t label)
{
    char text[512];
    set->ops->describe(set, index, text, sizeof text);
    const size_t length = strlen(text), wanted = strlen(path);
    if (length < wanted || strcmp(text + length - wanted, path) != 0)
        fail_msg("image %d is %s, expected %s", index, text, path);
    assert_int_equal(set->labels[index], label);
}

/* ---- what is listed ---- */

/* What torchvision's ImageFolder lists of these, in its order: classes by bytes, so that capitals come first; then
 * folders by their whole paths, so that "a-b" comes before "a/b"; then files. */
static const struct {
    const char *path;
    int32_t label;
} listed[] = {
    {"train/Z/9.jpg", 0},     {"train/a/1.JPEG", 1},  {"train/a/10.jpg", 1},  {"train/a/2.png", 1},
    {"train/a/B/0.jpg", 1},   {"train/a/b/0.jpg", 1}, {"train/a/b/1.jpg", 1}, {"train/a/b-c/0.jpg", 1},
    {"train/a/b/c/0.jpg", 1}, {"train/a.b/x.JPG", 2}, {"train/b/5.jpg", 3},
};
enum { LISTED = sizeof listed / sizeof *listed };

static void write_listed(scratch *s, bool backwards)
{
    for (int i = 0; i < LISTED; i++) {
        const int k = backwards ? LISTED - 1 - i : i;
        write_image(s, listed[k].path, k);
    }
}

static void order_is_that_of_image_folder(void **state)
{
    scratch *s = *state;
    static const char *const classes[] = {"Z", "a", "a.b", "b"};
    write_listed(s, true);
    scratch_write(s, "train/a/notes.txt", "no image", 8);
    scratch_write(s, "train/0.jpg", "of no class", 11);
    image_set set = open_set(s, ".", SPLIT_TRAIN, 0);
    assert_int_equal(set.images, LISTED);
    assert_int_equal(set.classes, 4);
    assert_true(set.height == SIZE_VARIES && set.width == SIZE_VARIES && !set.pixels);
    for (int32_t label = 0; label < 4; label++)
        assert_string_equal(image_set_class_name(&set, label), classes[label]);
    for (int32_t i = 0; i < LISTED; i++)
        expect_image(&set, i, listed[i].path, listed[i].label);
    image_set_close(&set);
}

static void pixels_are_those_of_the_file(void **state)
{
    scratch *s = *state;
    image_reader *reader;
    uint8_t expected[PIXELS], got[PIXELS];
    int32_t height, width;
    write_listed(s, false);
    image_set set = open_set(s, ".", SPLIT_TRAIN, 0);
    const image_view whole = {.region = {.height = HEIGHT, .width = WIDTH},
                              .height = HEIGHT,
                              .width = WIDTH,
                              .window = {.height = HEIGHT, .width = WIDTH}};
    assert_int_equal(set.ops->reader_open(&reader, &set), 0);
    assert_int_equal(set.ops->load(reader, 3, &height, &width), 0); /* the PNG */
    assert_true(height == HEIGHT && width == WIDTH);
    assert_int_equal(set.ops->render(reader, &whole, got), 0);
    make_pixels(expected, 3);
    assert_memory_equal(got, expected, sizeof expected);
    set.ops->reader_close(reader);
    image_set_close(&set);
}

/* Of the names that a test split may have, the first one counts. */
static void test_images_lie_in_val(void **state)
{
    static const char *const names[] = {"test", "validation", "val"};
    scratch *s = *state;
    char path[64];
    write_image(s, "train/a/0.jpg", 0);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/a/0.jpg", names[i]);
        write_image(s, path, i);
        image_set set = open_set(s, ".", SPLIT_TEST, 0);
        expect_image(&set, 0, path, 0);
        image_set_close(&set);
    }
}

static void a_limit_takes_images_of_all_classes(void **state)
{
    scratch *s = *state;
    char path[64];
    for (int i = 0; i < 24; i++) {
        snprintf(path, sizeof path, "train/%c/%02d.jpg", 'a' + i / 8, i);
        write_image(s, path, i);
    }
    image_set set = open_set(s, ".", SPLIT_TRAIN, 6);
    assert_int_equal(set.images, 6);
    assert_int_equal(set.classes, 3);
    for (int32_t i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "train/%c/%02d.jpg", 'a' + i / 2, 4 * i);
        expect_image(&set, i, path, i / 2);
    }
    image_set_close(&set);
    set = open_set(s, ".", SPLIT_TRAIN, 1000);
    assert_int_equal(set.images, 24);
    image_set_close(&set);
}

/* ---- which set it is ---- */

static void identify(scratch *s, const char *name, char text[IMAGE_SET_IDENTITY_BYTES])
{
    image_set set = open_set(s, name, SPLIT_TRAIN, 0);
    image_set_identity(&set, text);
    image_set_close(&set);
}

/* A folder lists its files in an order of its own, which another copy need not have. */
static void a_copy_is_the_same_set(void **state)
{
    scratch *s = *state;
    char text[3][IMAGE_SET_IDENTITY_BYTES], path[64];
    for (int copy = 0; copy < 2; copy++)
        for (int i = 0; i < 20; i++) {
            const int k = copy ? 19 - i : i;
            snprintf(path, sizeof path, "copy%d/train/%d/%d.jpg", copy, k % 2, k);
            write_image(s, path, 0);
        }
    identify(s, "copy0", text[0]);
    identify(s, "copy1", text[1]);
    assert_string_equal(text[0], text[1]);
    char from[160];
    snprintf(from, sizeof from, "%s", scratch_path(s, "copy1/train/0/4.jpg"));
    assert_int_equal(rename(from, scratch_path(s, "copy1/train/0/44.jpg")), 0);
    identify(s, "copy1", text[2]);
    assert_string_not_equal(text[0], text[2]);
}

/* ---- what is wrong ---- */

/* Loads and renders image `index`. */
static int read_image(const image_set *set, int32_t index)
{
    image_reader *reader;
    uint8_t pixels[PIXELS];
    int32_t height, width;
    assert_int_equal(set->ops->reader_open(&reader, set), 0);
    int status = set->ops->load(reader, index, &height, &width);
    if (status == 0) {
        const image_view whole = {.region = {.height = height, .width = width},
                                  .height = HEIGHT,
                                  .width = WIDTH,
                                  .window = {.height = HEIGHT, .width = WIDTH}};
        status = set->ops->render(reader, &whole, pixels);
    }
    set->ops->reader_close(reader);
    return status;
}

static void files_change_behind_an_open_set(void **state)
{
    scratch *s = *state;
    uint8_t *bytes;
    size_t size;
    for (int i = 0; i < 6; i++) {
        char path[64];
        snprintf(path, sizeof path, "train/a/%d.jpg", i);
        write_image(s, path, i);
    }
    image_set set = open_set(s, ".", SPLIT_TRAIN, 0);
    assert_int_equal(unlink(scratch_path(s, "train/a/0.jpg")), 0);
    assert_int_equal(read_image(&set, 0), ERROR_FILE);
    assert_contains(error_message(), "train/a/0.jpg: cannot open: No such file");

    bytes = scratch_read(s, "train/a/1.jpg", &size);
    scratch_write(s, "train/a/1.jpg", bytes, size / 2);
    scratch_write(s, "train/a/2.jpg", bytes, 10);
    scratch_write(s, "train/a/3.jpg", bytes, 0);
    free(bytes);
    for (int32_t i = 1; i <= 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "train/a/%d.jpg: ", i);
        assert_int_equal(read_image(&set, i), ERROR_DATA);
        assert_contains(error_message(), path);
    }
    assert_int_equal(unlink(scratch_path(s, "train/a/4.jpg")), 0);
    assert_int_equal(mkdir(scratch_path(s, "train/a/4.jpg"), 0777), 0);
    assert_int_equal(read_image(&set, 4), ERROR_FILE);
    assert_contains(error_message(), "train/a/4.jpg: not a file");
    assert_int_equal(read_image(&set, 5), 0); /* the others are not concerned */
    image_set_close(&set);
}

static void refuse(const char *path, data_split split, int code, const char *words)
{
    image_set set;
    assert_int_equal(try_open(&set, path, split, 0), code);
    assert_contains(error_message(), words);
    assert_null(set.labels); /* nothing is held */
}

static void folders_that_are_no_data_set(void **state)
{
    scratch *s = *state;
    refuse(scratch_path(s, "none"), SPLIT_TRAIN, ERROR_FILE, "/none: not a folder");
    write_image(s, "a/train/x/0.jpg", 0);
    refuse(scratch_path(s, "a"), SPLIT_TEST, ERROR_FILE, "/a: holds no folder \"val\"");
    refuse(scratch_path(s, "a/train"), SPLIT_TRAIN, ERROR_FILE, "/a/train: holds no folder \"train\"");
    make_folders(s, "a/val/");
    refuse(scratch_path(s, "a"), SPLIT_TEST, ERROR_DATA, "/a/val: holds no folders");
    make_folders(s, "a/train/empty/deeper/");
    refuse(scratch_path(s, "a"), SPLIT_TRAIN, ERROR_DATA, "/a/train/empty: the class has no image");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order_is_that_of_image_folder, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(pixels_are_those_of_the_file, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_images_lie_in_val, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_limit_takes_images_of_all_classes, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_copy_is_the_same_set, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(files_change_behind_an_open_set, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(folders_that_are_no_data_set, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

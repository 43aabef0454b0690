/* The table of sources, CIFAR's files, good and bad, and synthetic images. */
#include "scratch.h"

#include "base/error.h"
#include "io/data/source.h"
#include "io/data/synth.h"

#include <math.h>
#include <sys/stat.h>

enum { PLANE = 1024, RECORD_100 = 2 + 3 * PLANE, RECORD_10 = 1 + 3 * PLANE };

/* Any byte that depends on all of its coordinates. */
static uint8_t pattern(int image, int channel, int y, int x)
{
    return (uint8_t)(image * 31 + channel * 101 + y * 7 + x * 3);
}

static void fill_record(uint8_t *record, int label_bytes, int label, int image)
{
    record[0] = 17; /* the coarse label, where there is one */
    record[label_bytes - 1] = (uint8_t)label;
    for (int i = 0; i < 3 * PLANE; i++)
        record[label_bytes + i] = pattern(image, i / PLANE, i % PLANE / 32, i % 32);
}

static void write_cifar100(scratch *s, const char *name, int images, size_t cut, int bad_record)
{
    uint8_t *bytes = malloc((size_t)images * RECORD_100);
    assert_non_null(bytes);
    for (int i = 0; i < images; i++)
        fill_record(bytes + i * RECORD_100, 2, i == bad_record ? 100 : 99 - i, i);
    scratch_write(s, name, bytes, (size_t)images * RECORD_100 - cut);
    free(bytes);
}

static void check_pixels(const image_set *set, int image, int first)
{
    const uint8_t *pixels = set->pixels + (size_t)image * image_bytes(set);
    for (int y = 0; y < 32; y++)
        for (int x = 0; x < 32; x++)
            for (int c = 0; c < 3; c++)
                assert_int_equal(pixels[(y * 32 + x) * 3 + c], pattern(first + image, c, y, x));
}

static int open_cifar(image_set *set, const char *name, const char *folder, data_split split, int32_t limit)
{
    const data_source *source;
    assert_int_equal(source_find(&source, name), 0);
    return source_open(set, source, &(source_request){.path = folder, .split = split, .limit = limit});
}

static void test_table(void **state)
{
    (void)state;
    const data_source *source;
    int rows = 0;
    for (; source_at(rows); rows++) {
        assert_int_equal(source_find(&source, source_at(rows)->name), 0);
        assert_ptr_equal(source, source_at(rows));
        assert_true(source->wants == NULL || source->classes > 0);
    }
    assert_true(rows >= 4);
    assert_int_equal(source_find(&source, "cifar1000"), ERROR_SETTINGS);
    assert_contains(error_message(), "data.kind: \"cifar1000\" is not one of cifar100, cifar10, shards, folders, synthetic");
    assert_int_equal(source_find(&source, "cifar10"), 0);
    assert_int_equal(source_expected_images(source, SPLIT_TRAIN, 0), 50000);
    assert_int_equal(source_expected_images(source, SPLIT_TEST, 7), 7);
    assert_int_equal(source_expected_images(source, SPLIT_TEST, 70000), 10000);
    assert_int_equal(source_find(&source, "synthetic"), 0);
    assert_int_equal(source_expected_images(source, SPLIT_TEST, 70000), 70000);
    assert_false(source_holds(source, "/tmp", "/tmp/train.bin"));
}

static void test_cifar100(void **state)
{
    scratch *s = *state;
    write_cifar100(s, "train.bin", 3, 0, -1);
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar100", s->folder, SPLIT_TRAIN, 0), 0);
    assert_int_equal(set.images, 3);
    assert_int_equal(set.classes, 100);
    assert_true(set.height == 32 && set.width == 32);
    assert_true(set.mean[1] == 0.4822F && set.std[2] == 0.2010F);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(set.labels[i], 99 - i);
        check_pixels(&set, i, 0);
    }
    image_set_close(&set);
    assert_null(set.pixels);

    assert_int_equal(open_cifar(&set, "cifar100", s->folder, SPLIT_TRAIN, 2), 0);
    assert_int_equal(set.images, 2);
    image_set_close(&set);
}

static void test_cifar10_subfolder(void **state)
{
    scratch *s = *state;
    assert_int_equal(mkdir(scratch_path(s, "cifar-10-batches-bin"), 0777), 0);
    uint8_t record[2 * RECORD_10];
    for (int file = 0; file < 5; file++) {
        char name[64];
        snprintf(name, sizeof name, "cifar-10-batches-bin/data_batch_%d.bin", file + 1);
        fill_record(record, 1, file, 2 * file);
        fill_record(record + RECORD_10, 1, 9 - file, 2 * file + 1);
        scratch_write(s, name, record, sizeof record);
    }
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar10", s->folder, SPLIT_TRAIN, 7), 0);
    assert_int_equal(set.images, 7);
    assert_int_equal(set.labels[5], 7);
    check_pixels(&set, 6, 0);
    image_set_close(&set);

    assert_int_equal(open_cifar(&set, "cifar10", s->folder, SPLIT_TEST, 0), ERROR_FILE);
    assert_contains(error_message(), "cifar-10-batches-bin/test_batch.bin");
    unlink(scratch_path(s, "cifar-10-batches-bin/data_batch_3.bin"));
    assert_int_equal(open_cifar(&set, "cifar10", s->folder, SPLIT_TRAIN, 0), ERROR_FILE);
    assert_contains(error_message(), "data_batch_3.bin");
}

static void expect_bad(scratch *s, int code, const char *first, const char *second)
{
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar100", s->folder, SPLIT_TRAIN, 0), code);
    assert_contains(error_message(), s->folder);
    assert_contains(error_message(), first);
    assert_contains(error_message(), second);
    assert_null(set.pixels);
}

static void test_bad_files(void **state)
{
    scratch *s = *state;
    expect_bad(s, ERROR_FILE, "train.bin", "cifar-100-binary/train.bin");
    scratch_write(s, "train.bin", "", 0);
    expect_bad(s, ERROR_DATA, "train.bin", "no records");
    write_cifar100(s, "train.bin", 3, 1, -1);
    expect_bad(s, ERROR_DATA, "record 2", "offset 6148");
    write_cifar100(s, "train.bin", 1, 3000, -1);
    expect_bad(s, ERROR_DATA, "74 bytes", "3074 bytes");
    write_cifar100(s, "train.bin", 5, 0, 3);
    expect_bad(s, ERROR_DATA, "record 3 (offset 9222)", "label 100");
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar100", s->folder, SPLIT_TRAIN, 3), 0); /* the bad one is beyond the limit */
    image_set_close(&set);
    assert_int_equal(open_cifar(&set, "cifar100", s->folder, SPLIT_TRAIN, -1), ERROR_SETTINGS);
    unlink(scratch_path(s, "train.bin"));
    assert_int_equal(mkdir(scratch_path(s, "train.bin"), 0777), 0);
    expect_bad(s, ERROR_FILE, "train.bin", "not a regular file");
}

/* Names of classes are taken where there is one for each class. */
static void test_class_names(void **state)
{
    scratch *s = *state;
    image_set set;
    char folder[96], names[] = "a\nb\n c \nd\ne\nf\ng\nh\ni\n\n";
    snprintf(folder, sizeof folder, "%s/made", s->folder);
    assert_int_equal(synth_write(folder, 10, 1, 5), 0);
    assert_int_equal(open_cifar(&set, "cifar10", folder, SPLIT_TRAIN, 0), 0);
    for (int32_t label = 0; label < 10; label++)
        assert_string_equal(image_set_class_name(&set, label), synth_class_name(label));
    assert_null(image_set_class_name(&set, -1));
    assert_null(image_set_class_name(&set, 10));
    image_set_close(&set);
    scratch_write(s, "made/batches.meta.txt", names, strlen(names));
    assert_int_equal(open_cifar(&set, "cifar10", folder, SPLIT_TRAIN, 0), 0);
    assert_null(image_set_class_name(&set, 0));
    image_set_close(&set);
}

static int open_synthetic(image_set *set, int32_t images, uint64_t seed)
{
    const data_source *source;
    const source_request request = {.limit = images, .side = 8, .classes = 5, .seed = seed};
    assert_int_equal(source_find(&source, "synthetic"), 0);
    return source_open(set, source, &request);
}

static void test_synthetic(void **state)
{
    (void)state;
    image_set a, b;
    char of_a[IMAGE_SET_IDENTITY_BYTES], of_b[IMAGE_SET_IDENTITY_BYTES];
    assert_int_equal(open_synthetic(&a, 37, 1), 0);
    assert_int_equal(open_synthetic(&b, 37, 1), 0);
    assert_memory_equal(a.pixels, b.pixels, 37 * 8 * 8 * 3);
    image_set_identity(&a, of_a);
    image_set_identity(&b, of_b);
    assert_string_equal(of_a, of_b);
    assert_contains(of_a, "37 images of 8x8, 5 classes, checksum ");
    int seen[5] = {0};
    for (int i = 0; i < 37; i++) {
        assert_in_range(a.labels[i], 0, 4);
        assert_int_equal(a.labels[i], b.labels[i]);
        seen[a.labels[i]]++;
    }
    for (int i = 0; i < 5; i++)
        assert_true(seen[i] > 0);
    image_set_close(&b);
    assert_int_equal(open_synthetic(&b, 37, 2), 0);
    assert_memory_not_equal(a.pixels, b.pixels, 37 * 8 * 8 * 3);
    image_set_identity(&b, of_b);
    assert_string_not_equal(of_a, of_b);
    image_set_close(&a);
    image_set_close(&b);
    assert_int_equal(open_synthetic(&b, -1, 2), ERROR_SETTINGS);
}

static void test_synth_files(void **state)
{
    scratch *s = *state;
    const char *const names[] = {"data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"};
    char folder[96];
    snprintf(folder, sizeof folder, "%s/made", s->folder);
    assert_int_equal(synth_write(folder, 43, 11, 5), 0);
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar10", folder, SPLIT_TRAIN, 0), 0);
    assert_int_equal(set.images, 43);
    for (int i = 0; i < 43; i++)
        assert_int_equal(set.labels[i], i % 10);
    uint8_t planar[SYNTH_IMAGE_BYTES];
    synth_draw(5, 0, 42, planar);
    for (int i = 0; i < PLANE; i++)
        assert_int_equal(planar[2 * PLANE + i], set.pixels[42 * image_bytes(&set) + (size_t)i * 3 + 2]);
    image_set_close(&set);
    assert_int_equal(open_cifar(&set, "cifar10", folder, SPLIT_TEST, 0), 0);
    assert_int_equal(set.images, 11);
    image_set_close(&set);

    snprintf(folder, sizeof folder, "%s/again", s->folder);
    assert_int_equal(synth_write(folder, 43, 11, 5), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) { /* the same seed, the same bytes */
        size_t count_a, count_b;
        char name[64];
        snprintf(name, sizeof name, "made/%s", names[i]);
        uint8_t *a = scratch_read(s, name, &count_a);
        snprintf(name, sizeof name, "again/%s", names[i]);
        uint8_t *b = scratch_read(s, name, &count_b);
        assert_int_equal(count_a, count_b);
        assert_memory_equal(a, b, count_a);
        free(a);
        free(b);
    }
    assert_int_equal(synth_write(folder, 4, 11, 5), ERROR_SETTINGS);
    assert_int_equal(synth_write("/dev/null/folder", 5, 1, 5), ERROR_FILE);
    assert_contains(error_message(), "/dev/null/folder");
}

/* Images differ by index, part and seed, and no channel's mean gives the class away. */
static void test_synth_images(void **state)
{
    (void)state;
    uint8_t a[SYNTH_IMAGE_BYTES], b[SYNTH_IMAGE_BYTES];
    synth_draw(1, 0, 7, a);
    synth_draw(1, 1, 7, b);
    assert_memory_not_equal(a, b, sizeof a);
    synth_draw(2, 0, 7, b);
    assert_memory_not_equal(a, b, sizeof a);
    synth_draw(1, 0, 17, b);
    assert_memory_not_equal(a, b, sizeof a);

    enum { EACH = 200 };
    for (uint32_t label = 0; label < SYNTH_CLASSES; label++) {
        double sum[3] = {0};
        for (uint32_t i = 0; i < EACH; i++) {
            synth_draw(1, 0, i * SYNTH_CLASSES + label, a);
            for (int j = 0; j < SYNTH_IMAGE_BYTES; j++)
                sum[j / PLANE] += a[j];
        }
        for (int c = 0; c < 3; c++) /* the mean's own standard error is about 4 */
            assert_in_range((int)(sum[c] / (EACH * PLANE)), 108, 147);
    }
}

static void test_real_cifar100(void **state)
{
    (void)state;
    const char *folder = getenv("TESKD_CIFAR100");
    if (!folder) {
        print_message("TESKD_CIFAR100 names no folder: the real CIFAR-100 is not read\n");
        skip();
    }
    image_set set;
    assert_int_equal(open_cifar(&set, "cifar100", folder, SPLIT_TEST, 0), 0);
    int seen[100] = {0};
    for (int i = 0; i < set.images; i++)
        seen[set.labels[i]]++;
    assert_int_equal(set.images, 10000);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seen[i], 100);
    image_set_close(&set);
    assert_int_equal(open_cifar(&set, "cifar100", folder, SPLIT_TRAIN, 0), 0);
    assert_int_equal(set.images, 50000);
    double sum[3] = {0};
    const size_t bytes = (size_t)set.images * image_bytes(&set);
    for (size_t i = 0; i < bytes; i++)
        sum[i % 3] += set.pixels[i];
    /* The training set's channel means are .5071 .4866 .4409: this holds the planes in the order red, green, blue. */
    const double means[] = {0.5071, 0.4866, 0.4409};
    for (int c = 0; c < 3; c++)
        assert_true(fabs(sum[c] * 3 / 255 / (double)bytes - means[c]) < 1e-3);
    image_set_close(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test_setup_teardown(test_class_names, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_cifar100, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_cifar10_subfolder, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_synthetic),
        cmocka_unit_test_setup_teardown(test_synth_files, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_synth_images),
        cmocka_unit_test(test_real_cifar100),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

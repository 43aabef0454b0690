/* Reading CIFAR files, good and bad, and the made-up sets. */
#include "scratch.h"

#include "base/error.h"
#include "io/data/dataset.h"
#include "io/data/synth.h"

#include <math.h>
#include <sys/stat.h>

enum { PLANE = 1024, RECORD_100 = 2 + 3 * PLANE, RECORD_10 = 1 + 3 * PLANE };

/* Any byte that depends on all of its coordinates. */
static uint8_t pattern(int picture, int channel, int y, int x)
{
    return (uint8_t)(picture * 31 + channel * 101 + y * 7 + x * 3);
}

static void fill_record(uint8_t *record, int label_bytes, int label, int picture)
{
    record[0] = 17; /* the coarse label, where there is one */
    record[label_bytes - 1] = (uint8_t)label;
    for (int i = 0; i < 3 * PLANE; i++)
        record[label_bytes + i] = pattern(picture, i / PLANE, i % PLANE / 32, i % 32);
}

static void write_cifar100(scratch *s, const char *name, int pictures, size_t cut, int bad_record)
{
    uint8_t *bytes = malloc((size_t)pictures * RECORD_100);
    assert_non_null(bytes);
    for (int i = 0; i < pictures; i++)
        fill_record(bytes + i * RECORD_100, 2, i == bad_record ? 100 : 99 - i, i);
    scratch_write(s, name, bytes, (size_t)pictures * RECORD_100 - cut);
    free(bytes);
}

static void check_pixels(const dataset *set, int picture, int first)
{
    const uint8_t *pixels = set->pixels + (size_t)picture * dataset_picture_bytes(set);
    for (int y = 0; y < 32; y++)
        for (int x = 0; x < 32; x++)
            for (int c = 0; c < 3; c++)
                assert_int_equal(pixels[(y * 32 + x) * 3 + c], pattern(first + picture, c, y, x));
}

static void test_cifar100(void **state)
{
    scratch *s = *state;
    write_cifar100(s, "train.bin", 3, 0, -1);
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 100, s->folder, DATASET_TRAIN, 0), 0);
    assert_int_equal(set.images, 3);
    assert_int_equal(set.classes, 100);
    assert_true(set.height == 32 && set.width == 32 && set.channels == 3);
    assert_true(set.mean[1] == 0.4822F && set.std[2] == 0.2010F);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(set.labels[i], 99 - i);
        check_pixels(&set, i, 0);
    }
    dataset_close(&set);
    assert_null(set.pixels);

    assert_int_equal(dataset_open_cifar(&set, 100, s->folder, DATASET_TRAIN, 2), 0);
    assert_int_equal(set.images, 2);
    dataset_close(&set);
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
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 10, s->folder, DATASET_TRAIN, 7), 0);
    assert_int_equal(set.images, 7);
    assert_int_equal(set.labels[5], 7);
    check_pixels(&set, 6, 0);
    dataset_close(&set);

    assert_int_equal(dataset_open_cifar(&set, 10, s->folder, DATASET_TEST, 0), ERROR_FILE);
    assert_contains(error_message(), "cifar-10-batches-bin/test_batch.bin");
    unlink(scratch_path(s, "cifar-10-batches-bin/data_batch_3.bin"));
    assert_int_equal(dataset_open_cifar(&set, 10, s->folder, DATASET_TRAIN, 0), ERROR_FILE);
    assert_contains(error_message(), "data_batch_3.bin");
}

static void expect_bad(scratch *s, int code, const char *first, const char *second)
{
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 100, s->folder, DATASET_TRAIN, 0), code);
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
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 100, s->folder, DATASET_TRAIN, 3),
                     0); /* the bad one is beyond the limit */
    dataset_close(&set);
    assert_int_equal(dataset_open_cifar(&set, 20, s->folder, DATASET_TRAIN, 0), ERROR_SETTINGS);
    assert_int_equal(dataset_open_cifar(&set, 100, s->folder, DATASET_TRAIN, -1), ERROR_SETTINGS);
    unlink(scratch_path(s, "train.bin"));
    assert_int_equal(mkdir(scratch_path(s, "train.bin"), 0777), 0);
    expect_bad(s, ERROR_FILE, "train.bin", "not a regular file");
}

static void test_synthetic(void **state)
{
    (void)state;
    dataset a, b;
    assert_int_equal(dataset_open_synthetic(&a, 37, 9, 7, 5, 1), 0);
    assert_int_equal(dataset_open_synthetic(&b, 37, 9, 7, 5, 1), 0);
    assert_memory_equal(a.pixels, b.pixels, 37 * 9 * 7 * 3);
    int seen[5] = {0};
    for (int i = 0; i < 37; i++) {
        assert_in_range(a.labels[i], 0, 4);
        assert_int_equal(a.labels[i], b.labels[i]);
        seen[a.labels[i]]++;
    }
    for (int i = 0; i < 5; i++)
        assert_true(seen[i] > 0);
    dataset_close(&b);
    assert_int_equal(dataset_open_synthetic(&b, 37, 9, 7, 5, 2), 0);
    assert_memory_not_equal(a.pixels, b.pixels, 37 * 9 * 7 * 3);
    dataset_close(&a);
    dataset_close(&b);
    assert_int_equal(dataset_open_synthetic(&b, 0, 9, 7, 5, 2), ERROR_SETTINGS);
}

static void test_synth_files(void **state)
{
    scratch *s = *state;
    const char *const names[] = {"data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"};
    char folder[96];
    snprintf(folder, sizeof folder, "%s/made", s->folder);
    assert_int_equal(synth_write(folder, 43, 11, 5), 0);
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 10, folder, DATASET_TRAIN, 0), 0);
    assert_int_equal(set.images, 43);
    for (int i = 0; i < 43; i++)
        assert_int_equal(set.labels[i], i % 10);
    uint8_t planar[SYNTH_PICTURE_BYTES];
    synth_draw(5, 0, 42, planar);
    for (int i = 0; i < PLANE; i++)
        assert_int_equal(planar[2 * PLANE + i], set.pixels[42 * dataset_picture_bytes(&set) + (size_t)i * 3 + 2]);
    dataset_close(&set);
    assert_int_equal(dataset_open_cifar(&set, 10, folder, DATASET_TEST, 0), 0);
    assert_int_equal(set.images, 11);
    dataset_close(&set);

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

/* Pictures differ by index, part and seed, and no channel's mean gives the class away. */
static void test_synth_pictures(void **state)
{
    (void)state;
    uint8_t a[SYNTH_PICTURE_BYTES], b[SYNTH_PICTURE_BYTES];
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
            for (int j = 0; j < SYNTH_PICTURE_BYTES; j++)
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
    dataset set;
    assert_int_equal(dataset_open_cifar(&set, 100, folder, DATASET_TEST, 0), 0);
    int seen[100] = {0};
    for (int i = 0; i < set.images; i++)
        seen[set.labels[i]]++;
    assert_int_equal(set.images, 10000);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seen[i], 100);
    dataset_close(&set);
    assert_int_equal(dataset_open_cifar(&set, 100, folder, DATASET_TRAIN, 0), 0);
    assert_int_equal(set.images, 50000);
    double sum[3] = {0};
    const size_t bytes = (size_t)set.images * dataset_picture_bytes(&set);
    for (size_t i = 0; i < bytes; i++)
        sum[i % 3] += set.pixels[i];
    /* The training set's channel means are .5071 .4866 .4409: this holds the planes in the order red, green, blue. */
    const double means[] = {0.5071, 0.4866, 0.4409};
    for (int c = 0; c < 3; c++)
        assert_true(fabs(sum[c] * 3 / 255 / (double)bytes - means[c]) < 1e-3);
    dataset_close(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cifar100, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_cifar10_subfolder, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_synthetic),
        cmocka_unit_test_setup_teardown(test_synth_files, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_synth_pictures),
        cmocka_unit_test(test_real_cifar100),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

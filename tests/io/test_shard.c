/* Shards: what is written comes back; what is damaged, missing, foreign or of another version is refused by name. */
#include "scratch.h"

#include "base/error.h"
#include "io/shard/shard_file.h"
#include "io/shard/shard_write.h"

#include <hdf5.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { IMAGES = 7, SHARDS = 2, CLASSES = 3 };

static char id_texts[CLASSES][4] = {"n01", "n02", "n03"}, name_texts[CLASSES][6] = {"one", "two", "three"};
static char *ids[CLASSES] = {id_texts[0], id_texts[1], id_texts[2]},
            *names[CLASSES] = {name_texts[0], name_texts[1], name_texts[2]};
static const char plan[] = "0123456789abcdef0123456789abcdef";

static uint32_t size_of(int64_t i)
{
    return (uint32_t)(10 + 37 * i);
}

static void fill(int64_t i, uint8_t *bytes)
{
    for (uint32_t k = 0; k < size_of(i); k++)
        bytes[k] = (uint8_t)(i * 31 + k * 7);
}

static void add_image(shard_writer *w, int64_t i)
{
    uint8_t bytes[512];
    char name[32];
    const shard_image image = {.size = size_of(i),
                               .label = (int32_t)(i % CLASSES),
                               .height = (int32_t)(3 + i),
                               .width = (int32_t)(4 + i),
                               .position = (uint64_t)(100 - 3 * i),
                               .flags = i % 2 ? SHARD_PNG : 0};
    fill(i, bytes);
    snprintf(name, sizeof name, "%s/%d.JPEG", ids[i % CLASSES], (int)i);
    assert_int_equal(shard_writer_add(w, &image, name, bytes), 0);
}

static void write_shard(const char *folder, int split, int32_t shard, int64_t first, int64_t end)
{
    char name[SHARD_FILE_BYTES], path[SHARD_PATH_BYTES];
    shard_writer *w;
    const shard_identity identity = {.plan = plan,
                                     .split = split,
                                     .shard = shard,
                                     .shards = split == 0 ? SHARDS : 1,
                                     .classes = CLASSES,
                                     .class_ids = ids,
                                     .class_names = names};
    assert_int_equal(shard_path_join(path, folder, shard_file_name(split, shard, name)), 0);
    assert_int_equal(shard_writer_create(&w, path, &identity), 0);
    for (int64_t i = first; i < end; i++)
        add_image(w, i);
    if (first == 0)
        assert_int_equal(shard_writer_leave_out(w, "n01/broken.JPEG"), 0);
    assert_int_equal(shard_writer_commit(&w), 0);
    assert_null(w);
}

/* A set of two training shards, 7 images, and a validation shard of one. */
static void write_set(const char *folder)
{
    shard_record records[2][SHARDS];
    manifest m = {.set = {.classes = CLASSES, .class_ids = ids, .class_names = names, .shards = {SHARDS, 1}}};
    memcpy(m.plan, plan, sizeof plan);
    memcpy(m.set.id, plan, sizeof plan);
    write_shard(folder, 0, 0, 0, 4);
    write_shard(folder, 0, 1, 4, IMAGES);
    write_shard(folder, 1, 0, 1, 2);
    for (int i = 0; i < 3; i++) {
        shard_file file;
        int split = i / 2, shard = i % 2;
        if (shard_file_open_unlisted(&file, &m, folder, split, shard) < 0)
            fail_msg("%s", error_message());
        records[split][shard] = file.record;
        m.records[split] = records[split];
        m.set.images[split] += file.record.images;
        m.set.bytes[split] += file.record.bytes;
        shard_file_close(&file);
    }
    assert_int_equal(manifest_write(&m, folder), 0);
}

static void test_round_trip(void **state)
{
    scratch *s = *state;
    shard_set *set;
    uint8_t bytes[512], expected[512];
    write_set(s->folder);
    if (shard_set_open(&set, s->folder, 0) < 0)
        fail_msg("%s", error_message());
    assert_int_equal(shard_set_images(set), IMAGES);
    assert_string_equal(shard_set_manifest(set)->class_names[2], "three");
    for (int64_t i = 0; i < IMAGES; i++) {
        const shard_image *image = shard_set_image(set, i);
        char name[SHARD_NAME_BYTES], wanted[64];
        fill(i, expected);
        assert_int_equal(image->size, size_of(i));
        assert_int_equal(image->label, i % CLASSES);
        assert_int_equal(image->height, 3 + i);
        assert_int_equal(shard_set_ordered(set, IMAGES - 1 - i), i);
        assert_int_equal(image->flags, i % 2 ? SHARD_PNG : 0);
        assert_int_equal(shard_set_read(set, i, bytes), 0);
        assert_memory_equal(bytes, expected, image->size);
        snprintf(wanted, sizeof wanted, "%s/%d.JPEG", ids[i % CLASSES], (int)i);
        assert_int_equal(shard_set_name(set, i, name), 0);
        assert_string_equal(name, wanted);
    }
    assert_true(shard_holds(s->folder, shard_set_path(set, 1)));
    assert_false(shard_holds(s->folder, "/dev/null"));
    assert_int_equal(scratch_count(s), 4); /* nothing is left over */
    shard_set_close(&set);
}

/* Opens and reads everything; 0 or the first failure. */
static int read_all(const char *folder)
{
    int status = 0;
    for (int split = 0; split < 2 && status == 0; split++) {
        shard_set *set;
        uint8_t bytes[512];
        TRY(shard_set_open(&set, folder, split));
        for (int64_t i = 0; i < shard_set_images(set) && status == 0; i++)
            status = shard_set_read(set, i, bytes);
        shard_set_close(&set);
    }
    return status;
}

static void test_same_bytes(void **state)
{
    scratch *s = *state;
    size_t count, again;
    write_set(s->folder);
    uint8_t *first = scratch_read(s, "train-00001.h5", &count);
    write_set(s->folder);
    uint8_t *second = scratch_read(s, "train-00001.h5", &again);
    assert_int_equal(count, again);
    assert_memory_equal(first, second, count);
    free(first);
    free(second);
}

/* One bit in every so many bytes: each opening takes long with the sanitizers' memory. */
#ifdef __SANITIZE_ADDRESS__
enum { FLIP_STEP = 13 };
#else
enum { FLIP_STEP = 1 };
#endif

static void test_every_flipped_bit_is_found(void **state)
{
    scratch *s = *state;
    size_t count;
    write_set(s->folder);
    uint8_t *bytes = scratch_read(s, "train-00000.h5", &count);
    for (size_t i = 0; i < count; i += FLIP_STEP) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        scratch_write(s, "train-00000.h5", bytes, count);
        if (read_all(s->folder) != ERROR_DATA)
            fail_msg("bit %zu of byte %zu: not found", i % 8, i);
        assert_contains(error_message(), "train-00000.h5");
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    scratch_write(s, "train-00000.h5", bytes, count);
    assert_int_equal(read_all(s->folder), 0);
    free(bytes);
}

static void refuse(scratch *s, int code, const char *word, const char *other)
{
    assert_int_equal(read_all(s->folder), code);
    assert_contains(error_message(), word);
    assert_contains(error_message(), other);
}

static void test_cut_off_and_missing(void **state)
{
    scratch *s = *state;
    write_set(s->folder);
    assert_int_equal(truncate(scratch_path(s, "train-00001.h5"), 9000), 0);
    refuse(s, ERROR_DATA, "train-00001.h5", "has 9000 bytes");
    assert_int_equal(unlink(scratch_path(s, "train-00001.h5")), 0);
    refuse(s, ERROR_FILE, "1 of 2 shards", "train-00001.h5");
    assert_int_equal(mkfifo(scratch_path(s, "train-00001.h5"), 0600), 0);
    refuse(s, ERROR_FILE, "train-00001.h5", "not a regular file");
    assert_int_equal(unlink(scratch_path(s, "manifest.json")), 0);
    refuse(s, ERROR_FILE, "manifest.json", "not finished");
}

static void test_shards_of_another_name(void **state)
{
    scratch *s = *state;
    char other[160];
    write_set(s->folder);
    snprintf(other, sizeof other, "%s", scratch_path(s, "train-00000.h5"));
    assert_int_equal(rename(scratch_path(s, "train-00001.h5"), other), 0);
    write_shard(s->folder, 0, 1, 4, IMAGES);
    refuse(s, ERROR_DATA, "train-00000.h5", "bytes");
}

/* While it is open. */
static void test_changed_while_open(void **state)
{
    scratch *s = *state;
    shard_set *set;
    uint8_t bytes[512];
    size_t count;
    write_set(s->folder);
    assert_int_equal(shard_set_open(&set, s->folder, 0), 0);
    const uint64_t offset = shard_set_image(set, 2)->offset;
    uint8_t *file = scratch_read(s, "train-00000.h5", &count);
    file[offset + 5] ^= 1;
    scratch_write(s, "train-00000.h5", file, count);
    free(file);
    assert_int_equal(shard_set_read(set, 1, bytes), 0);
    assert_int_equal(shard_set_read(set, 2, bytes), ERROR_DATA);
    assert_contains(error_message(), "train-00000.h5");
    assert_contains(error_message(), "image 2 of the shard, 'n03/2.JPEG'");
    assert_contains(error_message(), "has been changed since it was opened");
    assert_int_equal(truncate(scratch_path(s, "train-00000.h5"), (off_t)offset), 0);
    assert_int_equal(shard_set_read(set, 2, bytes), ERROR_DATA);
    assert_contains(error_message(), "too early");
    shard_set_close(&set);
}

static void test_manifests(void **state)
{
    static const struct {
        const char *from, *to, *word;
    } changes[] = {
        {"\"version\":1", "\"version\":9", "shard format version 9, this program reads version 1"},
        {"teskd-shards", "teskd-boards", "\"format\" is \"teskd-boards\""},
        {"\"images\":7", "\"images\":8", "train.images is 8, but the shards have 7"},
        {"train-00001.h5", "../n-00001.h5", "\"train.shards[1].file\""},
        {"\"classes\"", "\"klasses\"", "\"classes\" is missing"},
        {"n02", "", "\"classes[1].id\" is empty"},
        {"{", "[", "no JSON"},
    };
    scratch *s = *state;
    size_t count;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        write_set(s->folder);
        uint8_t *text = scratch_read(s, "manifest.json", &count);
        text[count] = '\0';
        char *at = strstr((char *)text, changes[i].from), *changed = malloc(count + 64);
        assert_non_null(at);
        assert_non_null(changed);
        int length = snprintf(changed, count + 64, "%.*s%s%s", (int)(at - (char *)text), text, changes[i].to,
                              at + strlen(changes[i].from));
        scratch_write(s, "manifest.json", changed, (size_t)length);
        refuse(s, ERROR_DATA, "manifest.json", changes[i].word);
        free(changed);
        free(text);
    }
}

/* Makes the manifest right for the first shard as it is now, so that HDF5 is asked. */
static void relist(scratch *s)
{
    manifest m;
    size_t count;
    assert_int_equal(manifest_read(&m, s->folder), 0);
    shard_record *r = &m.records[0][0];
    uint8_t *bytes = scratch_read(s, "train-00000.h5", &count);
    r->file_bytes = count;
    memmove(bytes + r->offset, bytes + r->offset + r->bytes, count - r->offset - r->bytes);
    r->checksum = XXH3_64bits(bytes, count - r->bytes);
    free(bytes);
    assert_int_equal(manifest_write(&m, s->folder), 0);
    manifest_close(&m);
}

static hid_t open_first(scratch *s)
{
    hid_t h5 = H5Fopen(scratch_path(s, "train-00000.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(h5 >= 0);
    return h5;
}

static void set_number(scratch *s, const char *name, int64_t value)
{
    hid_t h5 = open_first(s), attribute = H5Aopen(h5, name, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
    H5Fclose(h5);
    relist(s);
}

static void test_attributes(void **state)
{
    static const struct {
        const char *name;
        int64_t value;
        const char *word;
    } changes[] = {
        {"version", 2, "shard format version 2, this program reads version 1"},
        {"complete", 0, "is not complete"},
        {"shard", 1, "has been renamed"},
        {"shards", 3, "of another packing"},
        {"images", 3, "dataset 'offset' has 4 elements, expected 3"},
        {"images", -1, "'images' is -1"},
        {"index_checksum", 5, "the list of its images is damaged"},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        write_set(s->folder);
        set_number(s, changes[i].name, changes[i].value);
        refuse(s, ERROR_DATA, "train-00000.h5", changes[i].word);
    }
}

/* A dataset that is something else: a link to another file, chunks, another type. */
static void replace_dataset(scratch *s, const char *name, int way)
{
    hid_t h5 = open_first(s);
    const hsize_t four[1] = {4}, two[2] = {2, 2};
    hid_t space = way == 3 ? H5Screate_simple(2, two, NULL) : H5Screate_simple(1, four, NULL),
          creation = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Ldelete(h5, name, H5P_DEFAULT) >= 0);
    if (way == 0)
        H5Lcreate_external("/etc/passwd", "/x", h5, name, H5P_DEFAULT, H5P_DEFAULT);
    if (way == 1)
        H5Pset_chunk(creation, 1, four);
    if (way == 4)
        H5Pset_external(creation, "/etc/passwd", 0, 32);
    if (way == 5)
        H5Gclose(H5Gcreate2(h5, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    if (way == 6)
        H5Lcreate_soft("/bytes", h5, name, H5P_DEFAULT, H5P_DEFAULT);
    if (way >= 1 && way <= 4)
        H5Dclose(
            H5Dcreate2(h5, name, way == 2 ? H5T_IEEE_F64LE : H5T_STD_U64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    H5Pclose(creation);
    H5Sclose(space);
    H5Fclose(h5);
    relist(s);
}

static void test_other_datasets(void **state)
{
    static const char *const words[] = {"a link to somewhere else", "not a row of 8-byte", "not a row of 8-byte",
                                        "not a row of 8-byte",      "not a row of 8-byte", "cannot be opened",
                                        "a link to somewhere else"};
    scratch *s = *state;
    for (int way = 0; way < 7; way++) {
        write_set(s->folder);
        replace_dataset(s, "offset", way);
        refuse(s, ERROR_DATA, "train-00000.h5", words[way]);
        assert_contains(error_message(), "'offset'");
    }
}

/* Numbers that HDF5 gives as they are, but lead out of the file. */
static void change_row(scratch *s, const char *name, int64_t index, int64_t value)
{
    int64_t values[4] = {0};
    hid_t h5 = open_first(s), dataset = H5Dopen2(h5, name, H5P_DEFAULT), checksum;
    assert_true(H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    values[index] = value;
    assert_true(H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
    static const char *const rows[] = {"offset", "size",     "checksum", "label", "width",
                                       "height", "position", "flags",    "names", "name_offset"};
    XXH3_state_t *sum = XXH3_createState();
    XXH3_64bits_reset(sum);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dataset = H5Dopen2(h5, rows[i], H5P_DEFAULT);
        const size_t bytes = (size_t)H5Dget_storage_size(dataset);
        hid_t own = H5Dget_type(dataset);
        void *all = malloc(bytes);
        assert_true(H5Dread(dataset, own, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
        XXH3_64bits_update(sum, all, bytes);
        free(all);
        H5Tclose(own);
        H5Dclose(dataset);
    }
    const uint64_t digest = XXH3_64bits_digest(sum);
    XXH3_freeState(sum);
    checksum = H5Aopen(h5, "index_checksum", H5P_DEFAULT);
    assert_true(H5Awrite(checksum, H5T_NATIVE_UINT64, &digest) >= 0);
    H5Aclose(checksum);
    H5Fclose(h5);
    relist(s);
}

static void test_numbers_out_of_bounds(void **state)
{
    static const struct {
        const char *row;
        int64_t index, value;
        const char *word;
    } changes[] = {
        {"offset", 1, INT64_MAX, "image 1 of"},
        {"offset", 1, 11, "image 1 of"},
        {"offset", 0, 1, "image 0 of"},
        {"size", 3, INT32_MAX, "image 3 of"},
        {"size", 3, 120, "but the last image"},
        {"size", 0, 0, "image 0 of 0 bytes"},
        {"label", 2, 3, "image 2 has label 3"},
        {"label", 2, -1, "image 2 has label -1"},
        {"height", 1, 0, "image 1 has 5 x 0 pixels"},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        write_set(s->folder);
        change_row(s, changes[i].row, changes[i].index, changes[i].value);
        refuse(s, ERROR_DATA, "train-00000.h5", changes[i].word);
    }
}

static void test_names_out_of_bounds(void **state)
{
    scratch *s = *state;
    shard_set *set;
    char name[SHARD_NAME_BYTES];
    size_t count;
    write_set(s->folder);
    assert_int_equal(shard_set_open(&set, s->folder, 0), 0);
    uint8_t *bytes = scratch_read(s, "train-00000.h5", &count);
    const uint64_t ends[2] = {10, 20}; /* of the names 0 and 1: found in the file by what they are */
    uint8_t *at = memmem(bytes, count, ends, sizeof ends);
    assert_non_null(at);
    memset(at + 8, 0xff, 8);
    scratch_write(s, "train-00000.h5", bytes, count);
    free(bytes);
    assert_int_equal(shard_set_name(set, 0, name), 0);
    assert_int_equal(shard_set_name(set, 1, name), ERROR_DATA);
    assert_int_equal(shard_set_name(set, 2, name), ERROR_DATA);
    shard_set_close(&set);
}

static void test_nothing_readable(void **state)
{
    scratch *s = *state;
    shard_writer *w;
    const shard_identity identity = {
        .plan = plan, .shards = 1, .classes = CLASSES, .class_ids = ids, .class_names = names};
    assert_int_equal(shard_writer_create(&w, scratch_path(s, "train-00000.h5"), &identity), 0);
    assert_int_equal(shard_writer_leave_out(w, "x"), 0);
    assert_int_equal(shard_writer_commit(&w), ERROR_DATA);
    assert_int_equal(scratch_count(s), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {TEST(test_round_trip),
                                       TEST(test_same_bytes),
                                       TEST(test_every_flipped_bit_is_found),
                                       TEST(test_cut_off_and_missing),
                                       TEST(test_shards_of_another_name),
                                       TEST(test_changed_while_open),
                                       TEST(test_manifests),
                                       TEST(test_attributes),
                                       TEST(test_other_datasets),
                                       TEST(test_numbers_out_of_bounds),
                                       TEST(test_names_out_of_bounds),
                                       TEST(test_nothing_readable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

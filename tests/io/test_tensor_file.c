/* Tensor files: round trip, every truncation, every flipped byte, foreign and locked files, and that a failed write
 * changes nothing. */
#include "scratch.h"

#include "base/error.h"
#include "io/file/tensor_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static const int64_t weight_shape[] = {4, 3, 2, 2}, bias_shape[] = {5};
static const char *const weight_name = "weights/layer1.0.conv1.weight", *const bias_name = "weights/fc.bias";
enum { WEIGHTS = 48, BIASES = 5, SEAL_BYTES = 512 };

static float weight_value(int i)
{
    return 0.37F * (float)(i - 20);
}

static double bias_value(int i)
{
    return 1.0 / (i + 3);
}

static void write_small(const char *path, int64_t epoch)
{
    float weight[WEIGHTS];
    double bias[BIASES], scalar = 2.5;
    for (int i = 0; i < WEIGHTS; i++)
        weight[i] = weight_value(i);
    for (int i = 0; i < BIASES; i++)
        bias[i] = bias_value(i);
    tensor_file *file;
    assert_int_equal(tensor_file_create(&file, path), 0);
    assert_int_equal(tensor_file_write(file, weight_name, DTYPE_F32, 4, weight_shape, weight), 0);
    assert_int_equal(tensor_file_write(file, bias_name, DTYPE_F64, 1, bias_shape, bias), 0);
    assert_int_equal(tensor_file_write(file, "state/scale", DTYPE_F64, 0, NULL, &scalar), 0);
    assert_int_equal(tensor_file_set_int(file, "epoch", epoch), 0);
    assert_int_equal(tensor_file_set_double(file, "best_accuracy", 0.7915), 0);
    assert_int_equal(tensor_file_set_text(file, "settings", "train.lr = 0.1\n"), 0);
    assert_int_equal(tensor_file_commit(&file, NULL), 0);
    assert_null(file);
}

/* Reads everything of a small file: 0 when all is as written, a negative code when something was refused, 1 when a
 * wrong value came through. */
static int read_small(const char *path, int64_t epoch)
{
    tensor_file *file;
    float weight[WEIGHTS];
    double bias[BIASES], scalar = 0, accuracy = 0;
    int64_t found = 0;
    char *text = NULL;
    TRY(tensor_file_open(&file, path));
    int status = tensor_file_read(file, weight_name, DTYPE_F32, 4, weight_shape, weight);
    if (status == 0)
        status = tensor_file_read(file, bias_name, DTYPE_F64, 1, bias_shape, bias);
    if (status == 0)
        status = tensor_file_read(file, "state/scale", DTYPE_F64, 0, NULL, &scalar);
    if (status == 0)
        status = tensor_file_get_int(file, "epoch", 0, 100, &found);
    if (status == 0)
        status = tensor_file_get_double(file, "best_accuracy", 0, 1, &accuracy);
    if (status == 0)
        status = tensor_file_get_text(file, "settings", &text);
    if (status == 0) {
        bool right = found == epoch && scalar == 2.5 && accuracy == 0.7915 && strcmp(text, "train.lr = 0.1\n") == 0;
        for (int i = 0; i < WEIGHTS; i++)
            right = right && weight[i] == weight_value(i);
        for (int i = 0; i < BIASES; i++)
            right = right && bias[i] == bias_value(i);
        status = right ? 0 : 1;
    }
    free(text);
    tensor_file_close(&file);
    return status;
}

static void test_round_trip(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "a.h5");
    write_small(path, 17);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(read_small(path, 17), 0);

    tensor_file *file;
    assert_int_equal(tensor_file_open(&file, path), 0);
    assert_int_equal(tensor_file_count(file), 3);
    assert_string_equal(tensor_file_info(file, 0)->name, "state/scale");
    assert_string_equal(tensor_file_info(file, 1)->name, bias_name);
    assert_null(tensor_file_info(file, 3));
    const tensor_info *info = tensor_file_find(file, weight_name);
    assert_non_null(info);
    assert_true(info->type == DTYPE_F32 && info->rank == 4);
    assert_memory_equal(info->shape, weight_shape, sizeof weight_shape);
    assert_null(tensor_file_find(file, "weights"));

    double wide[WEIGHTS];
    float narrow[BIASES];
    assert_int_equal(tensor_file_read(file, weight_name, DTYPE_F64, 4, weight_shape, wide), 0);
    assert_int_equal(tensor_file_read(file, bias_name, DTYPE_F32, 1, bias_shape, narrow), 0);
    for (int i = 0; i < WEIGHTS; i++)
        assert_true(wide[i] == (double)weight_value(i));
    for (int i = 0; i < BIASES; i++)
        assert_true(narrow[i] == (float)bias_value(i));
    tensor_file_close(&file);
    tensor_file_close(&file);
}

static void test_wrong_requests(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "a.h5");
    write_small(path, 1);
    tensor_file *file;
    float values[WEIGHTS];
    int64_t number;
    double real;
    char *text;
    const int64_t other[] = {4, 3, 4, 1};
    assert_int_equal(tensor_file_open(&file, path), 0);
    assert_int_equal(tensor_file_read(file, weight_name, DTYPE_F32, 4, other, values), ERROR_SHAPE);
    assert_contains(error_message(), "has shape [4, 3, 2, 2], expected [4, 3, 4, 1]");
    assert_int_equal(tensor_file_read(file, "weights/none", DTYPE_F32, 4, other, values), ERROR_FILE);
    assert_contains(error_message(), "no tensor 'weights/none'");
    assert_int_equal(tensor_file_get_int(file, "none", 0, 1, &number), ERROR_FILE);
    assert_contains(error_message(), "no attribute 'none'");
    assert_int_equal(tensor_file_get_int(file, "settings", 0, 1, &number), ERROR_FILE);
    assert_contains(error_message(), "'settings' is not a single int64");
    assert_int_equal(tensor_file_get_double(file, "epoch", 0, 1, &real), ERROR_FILE);
    assert_contains(error_message(), "'epoch' is not a single float64");
    assert_int_equal(tensor_file_get_int(file, "epoch", 2, 9, &number), ERROR_DAMAGED);
    assert_contains(error_message(), "damaged: epoch is 1, expected 2 to 9");
    assert_int_equal(tensor_file_get_double(file, "best_accuracy", -1, 0.5, &real), ERROR_DAMAGED);
    assert_contains(error_message(), "damaged: best_accuracy is 0.7915, expected -1 to 0.5");
    assert_int_equal(tensor_file_get_text(file, "epoch", &text), ERROR_FILE);
    assert_null(text);
    tensor_file_close(&file);
}

/* Writes the first block of a file, as docs/formats.md has it. */
static void seal(uint8_t *bytes, size_t count)
{
    const uint64_t length = count;
    memset(bytes, 0, SEAL_BYTES);
    memcpy(bytes, "teskd-checkpoint", 16);
    memcpy(bytes + 16, &length, sizeof length);
    XXH3_state_t *state = XXH3_createState();
    assert_non_null(state);
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, bytes, 24);
    XXH3_64bits_update(state, bytes + 32, count - 32);
    const uint64_t sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    memcpy(bytes + 24, &sum, sizeof sum);
}

/* Copies the file with a change and returns what reading it says. */
static int read_changed(scratch *s, const uint8_t *bytes, size_t count)
{
    scratch_write(s, "changed.h5", bytes, count);
    int status = read_small(scratch_path(s, "changed.h5"), 17);
    if (status < 0 && !strstr(error_message(), s->path))
        fail_msg("\"%s\" does not name the file", error_message());
    return status;
}

static void test_truncation(void **state)
{
    scratch *s = *state;
    write_small(scratch_path(s, "a.h5"), 17);
    size_t count;
    uint8_t *bytes = scratch_read(s, "a.h5", &count);
    for (size_t length = 0; length < count; length++) {
        assert_int_equal(read_changed(s, bytes, length), ERROR_DAMAGED);
        assert_contains(error_message(), length >= 16 || length == 0 ? "damaged" : "teskd-checkpoint");
    }
    assert_int_equal(read_changed(s, bytes, count), 0);
    bytes = realloc(bytes, count + 600);
    assert_non_null(bytes);
    memset(bytes + count, 0, 600);
    for (size_t more = 1; more <= 600; more += 37) {
        assert_int_equal(read_changed(s, bytes, count + more), ERROR_DAMAGED);
        assert_contains(error_message(), "damaged: it has");
    }
    free(bytes);
}

static void test_flipped_byte(void **state)
{
    scratch *s = *state;
    write_small(scratch_path(s, "a.h5"), 17);
    size_t count;
    uint8_t *bytes = scratch_read(s, "a.h5", &count);
    for (size_t i = 0; i < count; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(read_changed(s, bytes, count), ERROR_DAMAGED);
        assert_contains(error_message(), "the file is damaged");
        bytes[i] ^= 0x10;
    }
    /* Where the checksum of the whole is right, that of the tensor finds the damage and says where it is. */
    const double bias = bias_value(2);
    uint8_t *at = memmem(bytes, count, &bias, sizeof bias);
    assert_non_null(at);
    *at ^= 1;
    assert_int_equal(read_changed(s, bytes, count), ERROR_DAMAGED);
    assert_contains(error_message(), "the file is damaged");
    seal(bytes, count);
    assert_int_equal(read_changed(s, bytes, count), ERROR_DAMAGED);
    assert_contains(error_message(), "'weights/fc.bias' is damaged");
    free(bytes);
}

static void test_no_first_block(void **state)
{
    scratch *s = *state;
    write_small(scratch_path(s, "a.h5"), 17);
    size_t count;
    uint8_t *bytes = scratch_read(s, "a.h5", &count);
    assert_int_equal(read_changed(s, bytes + SEAL_BYTES, count - SEAL_BYTES), ERROR_FILE);
    assert_contains(error_message(), "an HDF5 file without the first block by which teskd knows its own");
    free(bytes);
}

/* Files in which nothing differs but the second in which they were written. */
static void test_same_bytes(void **state)
{
    scratch *s = *state;
    size_t counts[2];
    write_small(scratch_path(s, "a.h5"), 17);
    sleep(1);
    uint8_t *first = scratch_read(s, "a.h5", &counts[0]);
    write_small(scratch_path(s, "a.h5"), 17);
    uint8_t *second = scratch_read(s, "a.h5", &counts[1]);
    assert_int_equal(counts[0], counts[1]);
    assert_memory_equal(first, second, counts[0]);
    free(first);
    free(second);
}

/* Reading takes no lock and waits for none. */
static void test_locked(void **state)
{
    const char *path = scratch_path(*state, "a.h5");
    write_small(path, 17);
    int file = open(path, O_RDWR | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(read_small(path, 17), 0);
    close(file);
}

static void expect_code(int code, const char *path, const char *part)
{
    tensor_file *file;
    assert_int_equal(tensor_file_open(&file, path), code);
    assert_null(file);
    assert_contains(error_message(), path);
    assert_contains(error_message(), part);
}

static void expect_refused(const char *path, const char *part)
{
    expect_code(ERROR_FILE, path, part);
}

static void write_foreign(const char *path, const char *format, int64_t version, bool integers)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), scalar = H5Screate(H5S_SCALAR);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    hid_t h5 = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    assert_true(h5 >= 0);
    if (format) {
        hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, strlen(format) + 1);
        hid_t attribute = H5Acreate2(h5, "format", type, scalar, H5P_DEFAULT, H5P_DEFAULT);
        H5Awrite(attribute, type, format);
        H5Aclose(attribute);
        H5Tclose(type);
        attribute = H5Acreate2(h5, "version", H5T_STD_I64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
        H5Awrite(attribute, H5T_NATIVE_INT64, &version);
        H5Aclose(attribute);
    }
    if (integers)
        H5Dclose(H5Dcreate2(h5, "numbers", H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(scalar);
    H5Fclose(h5);
}

/* Puts a first block before "f.h5", an HDF5 file without one. */
static void reseal(scratch *s)
{
    size_t count;
    uint8_t *rest = scratch_read(s, "f.h5", &count), *bytes = malloc(SEAL_BYTES + count);
    assert_non_null(bytes);
    memcpy(bytes + SEAL_BYTES, rest, count);
    seal(bytes, SEAL_BYTES + count);
    scratch_write(s, "f.h5", bytes, SEAL_BYTES + count);
    free(bytes);
    free(rest);
}

static void test_foreign(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "f.h5");
    expect_refused(path, "No such file");
    scratch_write(s, "f.h5", "not HDF5 at all", 15);
    expect_code(ERROR_DAMAGED, path, "teskd-checkpoint");
    write_foreign(path, "teskd-checkpoint", 1, false);
    expect_refused(path, "not a teskd-checkpoint: an HDF5 file without the first block");
    write_foreign(path, NULL, 0, false);
    reseal(s);
    expect_refused(path, "no attribute 'format'");
    write_foreign(path, "something", 1, false);
    reseal(s);
    expect_refused(path, "format is 'something', expected 'teskd-checkpoint'");
    write_foreign(path, "teskd-checkpoint", 2, false);
    reseal(s);
    expect_refused(path, "format version 2, this program reads version 1");
    write_foreign(path, "teskd-checkpoint", 1, true);
    reseal(s);
    expect_refused(path, "'numbers' is not a float32 or float64 tensor");
    expect_refused(s->folder, "not a teskd-checkpoint but a folder");
    expect_refused("/dev/null", "not a teskd-checkpoint but a pipe or a device");
    path = scratch_path(s, "large.h5"); /* which is not read for nothing */
    write_foreign(path, NULL, 0, false);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    expect_refused(path, "not a teskd-checkpoint: an HDF5 file without the first block");
    path = scratch_path(s, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused(path, "not a teskd-checkpoint but a pipe or a device");
}

/* A tensor of one number, with a checksum of `count` numbers; or whose number is in another file. */
static void write_trap(const char *path, hsize_t count, bool elsewhere)
{
    uint64_t numbers[24] = {0};
    hsize_t one = 1;
    write_foreign(path, "teskd-checkpoint", 1, false);
    hid_t h5 = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t single = H5Screate_simple(1, &one, NULL), many = H5Screate_simple(1, &count, NULL);
    if (elsewhere)
        H5Pset_external(creation, "/etc/passwd", 0, 4);
    hid_t dataset = H5Dcreate2(h5, "trap", H5T_IEEE_F32LE, single, H5P_DEFAULT, creation, H5P_DEFAULT);
    hid_t attribute = H5Acreate2(dataset, "xxh3", H5T_STD_U64LE, many, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_UINT64, numbers) >= 0);
    H5Aclose(attribute);
    H5Dclose(dataset);
    H5Pclose(creation);
    H5Sclose(single);
    H5Sclose(many);
    H5Fclose(h5);
}

static void test_traps(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "f.h5");
    const int64_t one = 1;
    tensor_file *file;
    float value;
    write_trap(path, 24, false);
    reseal(s);
    assert_int_equal(tensor_file_open(&file, path), 0);
    assert_int_equal(tensor_file_read(file, "trap", DTYPE_F32, 1, &one, &value), ERROR_FILE);
    assert_contains(error_message(), "cannot read tensor 'trap'");
    tensor_file_close(&file);
    write_trap(path, 1, true);
    reseal(s);
    expect_refused(path, "the values of 'trap' are in another file");
    write_foreign(path, "teskd-checkpoint", 1, false);
    hid_t h5 = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Lcreate_external("/etc/passwd", "x", h5, "away", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(h5);
    reseal(s);
    expect_refused(path, "'away' is a link to somewhere else");
}

/* Readers see the old file until the commit, and for good when there is none. */
static void test_atomic(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "a.h5");
    const float value = 1;
    const int64_t one = 1;
    write_small(path, 1);

    tensor_file *file;
    assert_int_equal(tensor_file_create(&file, path), 0);
    assert_int_equal(tensor_file_write(file, "x", DTYPE_F32, 1, &one, &value), 0);
    assert_int_equal(read_small(path, 1), 0);
    assert_int_equal(scratch_count(s), 2);
    tensor_file_close(&file);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(read_small(path, 1), 0);

    assert_int_equal(tensor_file_create(&file, path), 0);
    assert_int_equal(tensor_file_write(file, "x", DTYPE_F32, 1, &one, &value), 0);
    assert_int_equal(tensor_file_write(file, "x", DTYPE_F32, 1, &one, &value), ERROR_FILE); /* the name is taken */
    assert_contains(error_message(), "tensor 'x'");
    assert_int_equal(tensor_file_commit(&file, NULL), ERROR_FILE);
    assert_null(file);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(read_small(path, 1), 0);

    const int64_t empty[] = {3, 0};
    assert_int_equal(tensor_file_create(&file, path), 0);
    assert_int_equal(tensor_file_write(file, "x", DTYPE_F32, 2, empty, &value), ERROR_SHAPE);
    assert_int_equal(tensor_file_write(file, "x", DTYPE_F32, 5, empty, &value), ERROR_SHAPE);
    assert_int_equal(tensor_file_write(file, "", DTYPE_F32, 1, &one, &value), ERROR_SHAPE);
    tensor_file_close(&file);

    write_small(path, 2); /* a good commit replaces it */
    assert_int_equal(read_small(path, 2), 0);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(tensor_file_create(&file, "/nonexistent/a.h5"), ERROR_FILE);
    assert_null(file);
    assert_contains(error_message(), "/nonexistent/a.h5");
}

/* A disk that is full in the middle of a write, played by a limit on the file's size. */
static void test_full_disk(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "a.h5");
    const int64_t shape[] = {1 << 18};
    float *values = calloc(1 << 18, sizeof *values);
    assert_non_null(values);
    write_small(path, 1);
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 1 << 19;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    tensor_file *file;
    int created = tensor_file_create(&file, path);
    int written = tensor_file_write(file, "big", DTYPE_F32, 1, shape, values);
    int committed = tensor_file_commit(&file, NULL);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    free(values);
    assert_int_equal(created, 0);
    assert_int_equal(written, 0); /* into memory */
    assert_int_equal(committed, ERROR_FILE);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(read_small(path, 1), 0);
}

/* The files of other people's tools: h5py reads what we write. */
static void test_h5py(void **state)
{
    scratch *s = *state;
    char command[512];
    if (system("/usr/bin/python3 -c 'import h5py' >/dev/null 2>&1") != 0) {
        print_message("/usr/bin/python3 has no h5py: not tried\n");
        skip();
    }
    write_small(scratch_path(s, "a.h5"), 17);
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c \"import h5py; f = h5py.File('%s', 'r'); w = f['weights/layer1.0.conv1.weight'];"
             "assert w.shape == (4, 3, 2, 2) and w.dtype == 'float32' and abs(w[0, 0, 0, 1] + 0.37 * 19) < 1e-5;"
             "assert f['state/scale'][()] == 2.5 and f.attrs['epoch'] == 17;"
             "assert f.attrs['settings'] in (b'train.lr = 0.1\\n', 'train.lr = 0.1\\n')\"",
             s->path);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_requests, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_truncation, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_flipped_byte, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_no_first_block, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_same_bytes, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_locked, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_foreign, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_traps, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_atomic, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_h5py, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* safetensors files: what is written is read again, every number type is converted exactly, and damage of any kind ends
 * in an error. */
#include "../io/scratch.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/file/safetensors.h"

#include <math.h>
#include <sys/resource.h>

/* Writes a file with this header and that many bytes of tensors. */
static void write_file(scratch *s, const char *header, const void *data, size_t bytes)
{
    uint64_t length = strlen(header);
    char *whole = malloc(sizeof length + length + bytes);
    assert_non_null(whole);
    memcpy(whole, &length, sizeof length);
    memcpy(whole + sizeof length, header, length);
    if (bytes > 0)
        memcpy(whole + sizeof length + length, data, bytes);
    scratch_write(s, "file", whole, sizeof length + length + bytes);
    free(whole);
}

static void round_trip(void **state)
{
    scratch *s = *state;
    const float matrix[6] = {1, -2, 3.5F, 0, 1e-30F, INFINITY};
    const int64_t counter = 77;
    char long_name[] = "a \"name\" with \\ and \xc3\xb6", matrix_name[] = "matrix", empty_name[] = "empty";
    const safetensors_info infos[] = {{.name = long_name, .type = SAFETENSORS_I64},
                                      {.name = matrix_name, .type = SAFETENSORS_F32, .rank = 2, .shape = {2, 3}},
                                      {.name = empty_name, .type = SAFETENSORS_F32, .rank = 2, .shape = {0, 3}}};
    const safetensors_text texts[] = {{"format", "pt"}, {"note", "line\nbreak"}};
    safetensors_writer *w;
    safetensors_file *f;
    assert_int_equal(safetensors_create(&w, scratch_path(s, "file"), 3, infos, 2, texts), 0);
    assert_int_equal(safetensors_append(w, &counter), 0);
    assert_int_equal(safetensors_append(w, matrix), 0);
    assert_int_equal(safetensors_append(w, NULL), 0);
    assert_int_equal(safetensors_append(w, NULL), ERROR_INTERNAL);
    assert_int_equal(safetensors_commit(&w), 0);
    assert_null(w);
    assert_int_equal(scratch_count(s), 1);

    assert_int_equal(safetensors_open(&f, scratch_path(s, "file")), 0);
    assert_int_equal(safetensors_count(f), 3);
    for (int32_t i = 0; i < 3; i++) {
        const safetensors_info *info = safetensors_at(f, i);
        double values[6];
        if (strcmp(info->name, matrix_name) == 0) {
            assert_int_equal(info->rank, 2);
            assert_int_equal(info->shape[0], 2);
            assert_int_equal(info->shape[1], 3);
            assert_int_equal(safetensors_read(f, info, values), 0);
            for (int k = 0; k < 6; k++)
                assert_true((float)values[k] == matrix[k]);
        } else if (strcmp(info->name, long_name) == 0) {
            assert_int_equal(info->rank, 0);
            assert_int_equal(info->bytes, 8);
            assert_int_equal(safetensors_read(f, info, values), ERROR_DATA);
        } else {
            assert_string_equal(info->name, empty_name);
            assert_int_equal(safetensors_read(f, info, values), 0);
        }
    }
    safetensors_close(&f);
    assert_null(f);
}

static void unfinished(void **state)
{
    scratch *s = *state;
    char name[] = "a";
    const safetensors_info info = {.name = name, .type = SAFETENSORS_F32, .rank = 1, .shape = {2}};
    safetensors_writer *w;
    scratch_write(s, "file", "old", 3);
    assert_int_equal(safetensors_create(&w, scratch_path(s, "file"), 1, &info, 0, NULL), 0);
    assert_int_equal(safetensors_commit(&w), ERROR_INTERNAL);
    assert_null(w);
    assert_int_equal(safetensors_create(&w, scratch_path(s, "file"), 1, &info, 0, NULL), 0);
    safetensors_abandon(&w);
    size_t bytes;
    uint8_t *content = scratch_read(s, "file", &bytes);
    assert_int_equal(bytes, 3);
    free(content);
    assert_int_equal(scratch_count(s), 1);
    assert_int_equal(safetensors_create(&w, "/nowhere/file", 1, &info, 0, NULL), ERROR_FILE);
    assert_contains(error_message(), "/nowhere/file");
    assert_null(w);
}

static void read_one(scratch *s, const char *type, const void *data, size_t bytes, size_t count, double *values)
{
    char header[256];
    safetensors_file *f;
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}  ", type,
             count, bytes);
    write_file(s, header, data, bytes);
    assert_int_equal(safetensors_open(&f, scratch_path(s, "file")), 0);
    assert_int_equal(safetensors_read(f, safetensors_at(f, 0), values), 0);
    safetensors_close(&f);
}

static void number_types(void **state)
{
    const uint16_t half[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x3555, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x7c00, 0xfc00};
    const double half_values[] = {0,       -0.0,           1,       -2,       1365.0 / 4096, 65504,
                                  0x1p-24, 1023 * 0x1p-24, 0x1p-14, INFINITY, -INFINITY};
    const uint16_t brain[] = {0x0000, 0x3f80, 0xc000, 0x7f7f, 0x0001, 0xff80};
    const double brain_values[] = {0, 1, -2, 255 * 0x1p120, 0x1p-133, -INFINITY};
    const double doubles[] = {0.1, -1e300, 0};
    double values[11];
    read_one(*state, "F16", half, sizeof half, 11, values);
    for (int i = 0; i < 11; i++)
        assert_true(values[i] == half_values[i] && signbit(values[i]) == signbit(half_values[i]));
    read_one(*state, "BF16", brain, sizeof brain, 6, values);
    for (int i = 0; i < 6; i++)
        assert_true(values[i] == brain_values[i]);
    read_one(*state, "F64", doubles, sizeof doubles, 3, values);
    assert_memory_equal(values, doubles, sizeof doubles);
    const uint16_t not_a_number = 0x7e00;
    read_one(*state, "F16", &not_a_number, 2, 1, values);
    assert_true(isnan(values[0]));
}

/* Opens, and reads all it can; only the two outcomes are allowed. */
static int try_file(scratch *s)
{
    safetensors_file *f;
    int status = safetensors_open(&f, scratch_path(s, "file"));
    if (status < 0) {
        assert_int_equal(status, ERROR_FILE);
        assert_null(f);
        assert_contains(error_message(), s->path);
        return 0;
    }
    for (int32_t i = 0; i < safetensors_count(f); i++) {
        const safetensors_info *info = safetensors_at(f, i);
        double *values = malloc((size_t)info->bytes * 8 + 1);
        assert_non_null(values);
        status = safetensors_read(f, info, values);
        assert_true(status == 0 || status == ERROR_DATA);
        free(values);
    }
    safetensors_close(&f);
    return 1;
}

static const char whole_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"b\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[24,32]},"
    "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]}} ";

static void cut_anywhere(void **state)
{
    scratch *s = *state;
    static const char data[40];
    size_t bytes;
    write_file(s, whole_header, data, sizeof data);
    assert_int_equal(try_file(s), 1);
    uint8_t *content = scratch_read(s, "file", &bytes);
    for (size_t kept = 0; kept < bytes; kept++) {
        scratch_write(s, "file", content, kept);
        assert_int_equal(try_file(s), 0);
    }
    free(content);
}

static void changed_anywhere(void **state)
{
    enum { TRIES = 20000 };
    static const char data[40], favourites[] = "0123456789-{}[]\":,. \\u\0\xff"
                                               "eEtfn";
    scratch *s = *state;
    size_t bytes, header = sizeof(uint64_t) + strlen(whole_header);
    int taken = 0;
    write_file(s, whole_header, data, sizeof data);
    uint8_t *content = scratch_read(s, "file", &bytes), *damaged = malloc(bytes);
    assert_non_null(damaged);
    for (uint64_t i = 0; i < TRIES; i++) {
        uint64_t stream = rng_stream(RNG_SYNTHETIC, i);
        memcpy(damaged, content, bytes);
        for (uint64_t k = 0; k < 1 + i % 4; k++) {
            uint32_t place = rng_below(1, stream, 2 * k, (uint32_t)header);
            uint32_t other = rng_below(1, stream, 2 * k + 1, 256 + 4 * sizeof favourites);
            damaged[place] = other < 256 ? (uint8_t)other : (uint8_t)favourites[(other - 256) / 4];
        }
        scratch_write(s, "file", damaged, bytes);
        taken += try_file(s);
    }
    free(content);
    free(damaged);
    print_message("%d damaged headers: %d refused, %d still a valid file\n", TRIES, TRIES - taken, taken);
    assert_true(taken < TRIES / 2);
}

/* KiB that the process has had at most. */
static long most_memory(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

/* The largest header, of as many values as it can have, takes a bounded amount; a larger one is not looked at. */
static void memory_of_a_header(void **state)
{
    enum { LARGEST = 1 << 20 };
    char *header = malloc(LARGEST + 2);
    safetensors_file *f;
    assert_non_null(header);
    for (int i = 0; i < LARGEST + 1; i++)
        header[i] = i % 2 ? ',' : '0';
    memcpy(header, "{\"a\":[", 6);
    header[LARGEST] = '\0';
    write_file(*state, header, NULL, 0);
    long before = most_memory();
    assert_int_equal(safetensors_open(&f, scratch_path(*state, "file")), ERROR_FILE);
    assert_contains(error_message(), "JSON");
    assert_in_range(most_memory() - before, 0, 256 << 10);
    header[LARGEST] = '0';
    header[LARGEST + 1] = '\0';
    write_file(*state, header, NULL, 0);
    assert_int_equal(safetensors_open(&f, scratch_path(*state, "file")), ERROR_FILE);
    assert_contains(error_message(), "1048577 bytes, at most 1048576 are read");
    print_message("a header of %d bytes took %ld KiB\n", LARGEST, most_memory() - before);
    free(header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(unfinished, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(number_types, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(cut_anywhere, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(memory_of_a_header, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(changed_anywhere, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

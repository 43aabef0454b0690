/* Parts of JPEG images of every kind against the same parts of libjpeg's whole image; damage and truncation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "image_case.h"
#include "io/image/decode.h"
#include "io/image/encode.h"

static image_decoder *decoder;

static int setup(void **state)
{
    (void)state;
    return image_decoder_open(&decoder);
}

static int teardown(void **state)
{
    (void)state;
    image_decoder_close(&decoder);
    return 0;
}

/* A part of an image, as it is or scaled. */
static image_view random_part(int32_t height, int32_t width, uint32_t *seed)
{
    image_view view = case_random_view(height, width, 60, seed);
    if (case_random(seed, 0, 1)) {
        view.height = view.region.height;
        view.width = view.region.width;
        view.window = (image_region){.height = view.height, .width = view.width};
    }
    return view;
}

static void check_part(const uint8_t *bytes, size_t size, const uint8_t *whole, int32_t width, const image_view *view,
                       const char *what)
{
    uint8_t *expected = case_view(whole, width, view);
    const size_t count = (size_t)view->window.height * (size_t)view->window.width * IMAGE_CHANNELS;
    uint8_t *found = malloc(count);
    assert_non_null(found);
    if (image_decode(decoder, bytes, size, view, found) < 0)
        fail_msg("%s: %s", what, error_message());
    if (memcmp(expected, found, count) != 0)
        fail_msg("%s: %dx%d at (%d, %d) to %dx%d", what, view->region.width, view->region.height, view->region.left,
                 view->region.top, view->width, view->height);
    free(expected);
    free(found);
}

static void check_parts(const uint8_t *bytes, size_t size, int parts, uint32_t seed, const char *what)
{
    int32_t height, width;
    uint8_t *whole = case_whole(bytes, size, &height, &width);
    for (int i = 0; i < parts; i++) {
        const image_view view = random_part(height, width, &seed);
        check_part(bytes, size, whole, width, &view, what);
    }
    free(whole);
}

static void check_kind(const jpeg_kind *kind, int32_t height, int32_t width, int parts)
{
    char what[128];
    size_t size;
    uint8_t *pixels = case_picture(height, width, kind->channels, (uint32_t)(height + width));
    uint8_t *bytes = case_jpeg(kind, pixels, height, width, &size);
    snprintf(what, sizeof what, "%d channels %dx%d %s restart %d, %dx%d", kind->channels, kind->horizontal,
             kind->vertical, kind->progressive ? "progressive" : "baseline", kind->restart, width, height);
    check_parts(bytes, size, parts, (uint32_t)(7 * height + width), what);
    free(bytes);
    free(pixels);
}

static void check_sizes(const jpeg_kind *kind)
{
    static const int32_t sizes[][2] = {{1, 1}, {300, 2}, {3, 257}, {16, 16}, {17, 33}, {200, 231}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_kind(kind, sizes[i][0], sizes[i][1], i + 1 == sizeof sizes / sizeof sizes[0] ? 60 : 15);
}

static void test_parts(void **state)
{
    (void)state;
    static const int samples[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {1, 4}, {4, 2}};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
        for (int variant = 0; variant < 4; variant++) {
            const jpeg_kind kind = {.channels = 3,
                                    .horizontal = samples[i][0],
                                    .vertical = samples[i][1],
                                    .progressive = variant & 1,
                                    .restart = variant & 2 ? 5 : 0,
                                    .quality = 85};
            check_sizes(&kind);
        }
}

static void test_grey(void **state)
{
    (void)state;
    for (int factor = 1; factor <= 2; factor++) {
        const jpeg_kind kind = {.channels = 1, .horizontal = factor, .vertical = factor, .quality = 90};
        check_sizes(&kind);
    }
}

/* Of four channels this only looks whether parts agree with the whole; what the whole is, Pillow says. */
static void test_four_channels(void **state)
{
    (void)state;
    enum { HEIGHT = 90, WIDTH = 120 };
    const jpeg_kind kind = {.channels = 4, .horizontal = 1, .vertical = 1, .quality = 90};
    uint8_t *pixels = case_picture(HEIGHT, WIDTH, 4, 3), whole[HEIGHT * WIDTH * IMAGE_CHANNELS];
    size_t size;
    uint32_t seed = 5;
    image_info info;
    uint8_t *bytes = case_jpeg(&kind, pixels, HEIGHT, WIDTH, &size);
    assert_int_equal(image_probe(decoder, bytes, size, &info), 0);
    assert_int_equal(info.channels, 4);
    const image_view all = image_whole(&info);
    assert_int_equal(image_decode(decoder, bytes, size, &all, whole), 0);
    for (int i = 0; i < 20; i++) {
        const image_view view = random_part(HEIGHT, WIDTH, &seed);
        check_part(bytes, size, whole, WIDTH, &view, "four channels");
    }
    free(bytes);
    free(pixels);
}

static const image_view corner = {
    .region = {.height = 1, .width = 1}, .height = 1, .width = 1, .window = {.height = 1, .width = 1}};

/* An image that ends too early is refused whichever part is asked for. */
static void test_truncated(void **state)
{
    (void)state;
    uint8_t *pixels = case_picture(90, 70, IMAGE_CHANNELS, 1), to[3];
    for (int progressive = 0; progressive <= 1; progressive++) {
        const jpeg_kind kind = {
            .channels = 3, .horizontal = 2, .vertical = 2, .progressive = progressive, .quality = 80};
        size_t size;
        uint8_t *bytes = case_jpeg(&kind, pixels, 90, 70, &size);
        for (size_t length = 1; length < size; length += 11) {
            uint8_t *part = malloc(length);
            memcpy(part, bytes, length);
            assert_int_equal(image_decode(decoder, part, length, &corner, to), ERROR_DATA);
            free(part);
        }
        assert_non_null(strstr(error_message(), "ends too early"));
        assert_int_equal(image_decode(decoder, bytes, size, &corner, to), 0);
        free(bytes);
    }
    free(pixels);
}

/* Bytes after the end are no matter. */
static void test_more_bytes(void **state)
{
    (void)state;
    const jpeg_kind kind = {.channels = 3, .horizontal = 2, .vertical = 1, .quality = 80};
    uint8_t *pixels = case_picture(50, 70, IMAGE_CHANNELS, 1);
    size_t size;
    uint8_t *bytes = case_jpeg(&kind, pixels, 50, 70, &size), *longer = calloc(size + 9, 1);
    memcpy(longer, bytes, size);
    check_parts(longer, size + 9, 10, 3, "bytes after the end");
    free(longer);
    free(bytes);
    free(pixels);
}

static uint8_t *decode_or_null(const uint8_t *bytes, size_t size, const image_view *view)
{
    uint8_t *to = malloc((size_t)view->window.height * (size_t)view->window.width * IMAGE_CHANNELS);
    assert_non_null(to);
    if (image_decode(decoder, bytes, size, view, to) == 0)
        return to;
    free(to);
    return NULL;
}

/* A part of a damaged image is that of the whole damaged image, if there is one. */
static void check_damaged(const uint8_t *bytes, size_t size, uint32_t *seed)
{
    image_info info;
    if (image_probe(decoder, bytes, size, &info) < 0 || info.width > 1000 || info.height > 1000)
        return;
    const image_view all = image_whole(&info);
    uint8_t *whole = decode_or_null(bytes, size, &all);
    for (int i = 0; i < 3 && whole; i++) {
        const image_view view = random_part(info.height, info.width, seed);
        check_part(bytes, size, whole, info.width, &view, "damaged");
    }
    free(whole);
}

static void test_damaged(void **state)
{
    (void)state;
    uint32_t seed = 11;
    uint8_t *pixels = case_picture(120, 140, IMAGE_CHANNELS, 1);
    for (int i = 0; i < 200; i++) {
        const jpeg_kind kind = {.channels = 3,
                                .horizontal = 1 + i % 2,
                                .vertical = 1 + i / 2 % 2,
                                .restart = i % 3 ? 0 : 4,
                                .progressive = i % 5 == 0,
                                .quality = 80};
        size_t size;
        uint8_t *bytes = case_jpeg(&kind, pixels, 120, 140, &size);
        for (int hit = 0; hit < 1 + i % 3; hit++)
            bytes[case_random(&seed, i % 4 ? 600 : 0, (int32_t)size - 3)] ^= (uint8_t)(1 << case_random(&seed, 0, 7));
        check_damaged(bytes, size, &seed);
        free(bytes);
    }
    free(pixels);
}

/* Writes a side into the frame header. */
static void set_side(uint8_t *bytes, size_t size, bool height, int32_t side)
{
    for (size_t i = 0; i + 8 < size; i++)
        if (bytes[i] == 0xff && (bytes[i + 1] == 0xc0 || bytes[i + 1] == 0xc2)) {
            bytes[i + (height ? 5 : 7)] = (uint8_t)(side >> 8);
            bytes[i + (height ? 6 : 8)] = (uint8_t)side;
            return;
        }
    fail_msg("no frame header");
}

static void check_too_large(bool progressive, int32_t height, int32_t width, const char *reason)
{
    const jpeg_kind kind = {.channels = 3, .horizontal = 1, .vertical = 1, .progressive = progressive, .quality = 80};
    uint8_t *pixels = case_picture(8, 8, IMAGE_CHANNELS, 1), to[3];
    size_t size;
    uint8_t *bytes = case_jpeg(&kind, pixels, 8, 8, &size);
    set_side(bytes, size, true, height);
    set_side(bytes, size, false, width);
    assert_int_equal(image_decode(decoder, bytes, size, &corner, to), ERROR_DATA);
    if (!strstr(error_message(), reason))
        fail_msg("\"%s\" does not contain \"%s\"", error_message(), reason);
    free(bytes);
    free(pixels);
}

static void test_too_large(void **state)
{
    (void)state;
    check_too_large(false, 65500, 65500, "at most 536870912 in all");
    check_too_large(true, 65500, 65500, "at most 536870912 in all");
    check_too_large(true, 20000, 20000, "in several scans would take 2.4 GB");
    check_too_large(false, 65501, 10, "JPEG: ");
}

/* The file's last scan, several times more. */
static void test_many_scans(void **state)
{
    (void)state;
    const jpeg_kind kind = {.channels = 1, .horizontal = 1, .vertical = 1, .progressive = true, .quality = 80};
    uint8_t *pixels = case_picture(8, 8, 1, 1), to[3];
    size_t size, scan;
    uint8_t *bytes = case_jpeg(&kind, pixels, 8, 8, &size);
    for (scan = size - 2; bytes[scan] != 0xff || bytes[scan + 1] != 0xda;)
        scan--;
    const size_t once = size - 2 - scan, times = 1000;
    uint8_t *many = malloc(size + times * once);
    memcpy(many, bytes, size);
    for (size_t i = 0; i < times; i++)
        memcpy(many + size - 2 + i * once, bytes + scan, once);
    memcpy(many + size - 2 + times * once, "\xff\xd9", 2);
    assert_int_equal(image_decode(decoder, many, size + times * once, &corner, to), ERROR_DATA);
    assert_non_null(strstr(error_message(), "more than 200 scans"));
    free(many);
    free(bytes);
    free(pixels);
}

/* What the program itself writes: its samples, its sizes, the same bytes each time. */
static void test_encoder(void **state)
{
    (void)state;
    uint8_t *pixels = case_picture(100, 130, IMAGE_CHANNELS, 2), *low, *again, *high;
    size_t low_size, again_size, high_size;
    assert_int_equal(image_encode_jpeg(pixels, 100, 130, 75, &low, &low_size), 0);
    assert_int_equal(image_encode_jpeg(pixels, 100, 130, 75, &again, &again_size), 0);
    assert_int_equal(image_encode_jpeg(pixels, 100, 130, ENCODE_QUALITY, &high, &high_size), 0);
    assert_true(low_size == again_size && memcmp(low, again, low_size) == 0 && low_size < high_size);
    check_parts(low, low_size, 10, 1, "quality 75");
    check_parts(high, high_size, 10, 1, "quality 90");
    free(low);
    free(again);
    free(high);
    assert_int_equal(image_encode_jpeg(pixels, 1, 65501, 75, &low, &low_size), ERROR_DATA);
    assert_int_equal(image_encode_png(pixels, 0, 3, &low, &low_size), ERROR_DATA);
    free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),     cmocka_unit_test(test_grey),       cmocka_unit_test(test_four_channels),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_more_bytes), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_many_scans), cmocka_unit_test(test_encoder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

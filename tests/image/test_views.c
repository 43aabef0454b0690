/* Views of images that are stored without loss, on every instruction set, against the definition; and the choice of the
 * set. */
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

static uint8_t *decode(const uint8_t *bytes, size_t size, const image_view *view)
{
    uint8_t *pixels = malloc((size_t)view->window.height * (size_t)view->window.width * IMAGE_CHANNELS);
    assert_non_null(pixels);
    if (image_decode(decoder, bytes, size, view, pixels) < 0)
        fail_msg("%s", error_message());
    return pixels;
}

static void check_view(const uint8_t *bytes, size_t size, const uint8_t *pixels, int32_t width, const image_view *view)
{
    uint8_t *expected = case_view(pixels, width, view), *found = decode(bytes, size, view);
    const image_region *r = &view->region, *w = &view->window;
    if (memcmp(expected, found, (size_t)w->height * (size_t)w->width * IMAGE_CHANNELS) != 0)
        fail_msg("%s: %dx%d at (%d, %d) to %dx%d, of it %dx%d at (%d, %d)", image_isa(), r->width, r->height, r->left,
                 r->top, view->width, view->height, w->width, w->height, w->left, w->top);
    free(expected);
    free(found);
}

static void check_size(int32_t height, int32_t width, uint32_t seed)
{
    uint8_t *pixels = case_picture(height, width, IMAGE_CHANNELS, seed), *bytes;
    size_t size;
    image_info info;
    assert_int_equal(image_encode_png(pixels, height, width, &bytes, &size), 0);
    assert_int_equal(image_probe(decoder, bytes, size, &info), 0);
    assert_true(info.format == IMAGE_PNG && info.height == height && info.width == width && info.channels == 3);
    const image_view whole = image_whole(&info);
    check_view(bytes, size, pixels, width, &whole);
    for (int i = 0; i < 40; i++) {
        const image_view view = case_random_view(height, width, 150, &seed);
        check_view(bytes, size, pixels, width, &view);
    }
    free(bytes);
    free(pixels);
}

static void check_isa(const char *isa)
{
    static const int32_t sizes[][2] = {{1, 1}, {500, 3}, {3, 500}, {17, 33}, {64, 48}, {211, 190}, {2, 2}};
    if (image_choose_isa(isa) < 0) {
        assert_non_null(strstr(error_message(), "this processor has no"));
        print_message("%s\n", error_message());
        skip();
    }
    assert_string_equal(image_isa(), isa);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_size(sizes[i][0], sizes[i][1], (uint32_t)i);
}

static void test_plain(void **state)
{
    (void)state;
    check_isa("plain");
}

static void test_avx2(void **state)
{
    (void)state;
    check_isa("avx2");
}

static void test_avx512(void **state)
{
    (void)state;
    check_isa("avx512");
}

static void test_no_isa(void **state)
{
    (void)state;
    assert_int_equal(image_choose_isa("neon"), ERROR_SETTINGS);
    assert_non_null(strstr(error_message(), "avx512, avx2 or plain"));
}

/* Thousands of weights, of which each is small, and outputs made of every input. */
static void test_extreme(void **state)
{
    (void)state;
    enum { LONG = 9000 };
    uint8_t *pixels = malloc(LONG * IMAGE_CHANNELS), *bytes;
    size_t size;
    memset(pixels, 255, LONG * IMAGE_CHANNELS);
    assert_int_equal(image_encode_png(pixels, LONG, 1, &bytes, &size), 0);
    image_view view = {
        .region = {.height = LONG, .width = 1}, .height = 1, .width = 5, .window = {.height = 1, .width = 5}};
    check_view(bytes, size, pixels, 1, &view);
    free(bytes);
    assert_int_equal(image_encode_png(pixels, 1, LONG, &bytes, &size), 0);
    view = (image_view){
        .region = {.height = 1, .width = LONG}, .height = 3, .width = 1, .window = {.height = 3, .width = 1}};
    check_view(bytes, size, pixels, LONG, &view);
    free(bytes);
    free(pixels);
}

static void test_refuses_views(void **state)
{
    (void)state;
    static const image_view wrong[] = {
        {.region = {.height = 5, .width = 4}, .height = 1, .width = 1, .window = {.height = 1, .width = 1}},
        {.region = {.top = -1, .height = 2, .width = 2}, .height = 1, .width = 1, .window = {.height = 1, .width = 1}},
        {.region = {.height = 0, .width = 2}, .height = 1, .width = 1, .window = {.height = 1, .width = 1}},
        {.region = {.height = 4, .width = 4}, .height = 2, .width = 2, .window = {.left = 1, .height = 1, .width = 2}},
        {.region = {.height = 4, .width = 4},
         .height = 2,
         .width = 2,
         .window = {.top = INT32_MAX, .height = 1, .width = 1}},
    };
    uint8_t *pixels = case_picture(4, 4, IMAGE_CHANNELS, 1), *bytes, to[64];
    size_t size;
    assert_int_equal(image_encode_png(pixels, 4, 4, &bytes, &size), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(image_decode(decoder, bytes, size, &wrong[i], to), ERROR_INTERNAL);
    free(bytes);
    free(pixels);
}

/* Of each length that is too short; and what is no image. */
static void test_refuses_files(void **state)
{
    (void)state;
    uint8_t *pixels = case_picture(40, 30, IMAGE_CHANNELS, 1), *bytes, to[40 * 30 * IMAGE_CHANNELS];
    const image_view corner = {
        .region = {.height = 1, .width = 1}, .height = 1, .width = 1, .window = {.height = 1, .width = 1}};
    image_info info;
    size_t size;
    assert_int_equal(image_encode_png(pixels, 40, 30, &bytes, &size), 0);
    for (size_t length = 0; length < size - 30; length += 7) {
        uint8_t *part = malloc(length + 1);
        memcpy(part, bytes, length);
        assert_int_equal(image_decode(decoder, part, length, &corner, to), ERROR_DATA);
        free(part);
    }
    bytes[size / 2] ^= 0x55;
    assert_int_equal(image_probe(decoder, bytes, size, &info), 0);
    const image_view whole = image_whole(&info);
    assert_int_equal(image_decode(decoder, bytes, size, &whole, to), ERROR_DATA);
    assert_int_equal(image_probe(decoder, "GIF89a", 6, &info), ERROR_DATA);
    free(bytes);
    free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_avx2),    cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_no_isa),        cmocka_unit_test(test_extreme), cmocka_unit_test(test_refuses_views),
        cmocka_unit_test(test_refuses_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Random crops: within the image, of the sizes and ratios that are allowed, drawn evenly; central ones as
 * torchvision's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "io/image/crop.h"

static const crop_range usual = {.scale = {0.08, 1}, .ratio = {3.0 / 4, 4.0 / 3}};

static bool lies_in(const image_region *r, int32_t height, int32_t width)
{
    return r->top >= 0 && r->left >= 0 && r->height > 0 && r->width > 0 && r->top + r->height <= height &&
           r->left + r->width <= width;
}

static void test_random(void **state)
{
    (void)state;
    enum { CROPS = 20000, HEIGHT = 375, WIDTH = 500 };
    double area = 0, top = 0;
    for (uint32_t i = 0; i < CROPS; i++) {
        const image_region r = crop_random(&usual, HEIGHT, WIDTH, 3, 5, i),
                           same = crop_random(&usual, HEIGHT, WIDTH, 3, 5, i);
        const double share = (double)r.height * r.width / (HEIGHT * WIDTH), ratio = (double)r.width / r.height;
        assert_true(r.top == same.top && r.left == same.left && r.height == same.height && r.width == same.width);
        assert_true(lies_in(&r, HEIGHT, WIDTH));
        assert_true(share > 0.078 && share <= 1 && ratio > 0.735 && ratio < 1.36);
        area += share / CROPS;
        top += r.height < HEIGHT ? (r.top + 0.5) / (HEIGHT - r.height + 1) / CROPS : 0.5 / CROPS;
    }
    assert_true(fabs(top - 0.5) < 0.01);
    assert_true(fabs(area - 0.433) <
                0.01); /* less than the mean of the range: large ones that do not fit are drawn again */
}

static void test_small(void **state)
{
    (void)state;
    for (int32_t height = 1; height < 12; height++)
        for (int32_t width = 1; width < 12; width++)
            for (uint32_t i = 0; i < 50; i++) {
                const image_region r = crop_random(&usual, height, width, 1, 1, i);
                assert_true(lies_in(&r, height, width));
            }
}

/* No try fits in a strip: the middle, of the nearest ratio. */
static void test_strips(void **state)
{
    (void)state;
    const crop_range whole = {.scale = {1, 1}, .ratio = {3.0 / 4, 4.0 / 3}};
    image_region r = crop_random(&whole, 3, 500, 1, 1, 1);
    assert_true(r.top == 0 && r.height == 3 && r.width == 4 && r.left == 248);
    r = crop_random(&whole, 500, 3, 1, 1, 1);
    assert_true(r.left == 0 && r.width == 3 && r.height == 4 && r.top == 248);
}

/* {height, width, resize, side} and {scaled height, scaled width, top, left}. */
static void test_center(void **state)
{
    (void)state;
    static const int32_t cases[][8] = {
        {500, 400, 256, 224, 320, 256, 48, 16}, {375, 500, 256, 224, 256, 341, 16, 58},
        {376, 500, 256, 224, 256, 340, 16, 58}, {3, 500, 256, 224, 256, 42666, 16, 21221},
        {33, 17, 256, 224, 496, 256, 136, 16},  {1, 1, 256, 224, 256, 256, 16, 16},
        {100, 103, 100, 100, 100, 103, 0, 2},   {100, 101, 100, 100, 100, 101, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int32_t *c = cases[i];
        const image_view v = crop_center(c[0], c[1], c[2], c[3]);
        assert_true(v.region.height == c[0] && v.region.width == c[1] && v.region.top == 0 && v.region.left == 0);
        assert_true(v.height == c[4] && v.width == c[5]);
        assert_true(v.window.top == c[6] && v.window.left == c[7] && v.window.height == c[3] && v.window.width == c[3]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_strips),
        cmocka_unit_test(test_center),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

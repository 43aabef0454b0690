/* Philox against published answers; draws as pure functions; permutations. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t key;
        uint32_t counter[4], out[4];
    } known[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        rng_philox(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void uniform_has_its_moments(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, square = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(7, 3, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        square += u * u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.005);
    assert_true(fabs(square / N - 1.0 / 3) < 0.005);
}

static void normal_has_its_moments(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, square = 0, fourth = 0;
    for (uint64_t i = 0; i < N; i++) {
        double z = rng_normal(7, 3, i);
        assert_true(isfinite(z));
        sum += z;
        square += z * z;
        fourth += z * z * z * z;
    }
    assert_true(fabs(sum / N) < 0.02);
    assert_true(fabs(square / N - 1) < 0.03);
    assert_true(fabs(fourth / N - 3) < 0.2);
}

static void below_is_bounded_and_even(void **state)
{
    (void)state;
    enum { N = 70000, SIDES = 7 };
    int count[SIDES] = {0};
    for (uint64_t i = 0; i < N; i++) {
        uint32_t value = rng_below(1, 2, i, SIDES);
        assert_true(value < SIDES);
        count[value]++;
    }
    for (int side = 0; side < SIDES; side++)
        assert_true(abs(count[side] - N / SIDES) < 500);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(rng_below(1, 2, i, 1), 0);
        uint32_t bits = rng_below(1, 2, i, UINT32_MAX);
        assert_true(bits < UINT32_MAX);
    }
}

/* Each part of the address changes the draw, the upper halves included. */
static void draws_depend_on_every_argument(void **state)
{
    (void)state;
    const double base = rng_uniform(1, 2, 3);
    assert_true(rng_uniform(1, 2, 3) == base);
    for (int bit = 0; bit < 64; bit++) {
        const uint64_t flip = (uint64_t)1 << bit;
        assert_true(rng_uniform(1 ^ flip, 2, 3) != base);
        assert_true(rng_uniform(1, 2 ^ flip, 3) != base);
        assert_true(rng_uniform(1, 2, 3 ^ flip) != base);
    }
    assert_true(rng_stream(RNG_ORDER, 5) != rng_stream(RNG_AUGMENTATION, 5));
    assert_true(rng_stream(RNG_ORDER, 5) != rng_stream(RNG_ORDER, 6));
}

enum { IMAGES = 1000 };

static int in_place(const int32_t *a, const int32_t *b)
{
    int same = 0;
    for (int32_t i = 0; i < IMAGES; i++)
        same += a[i] == b[i];
    return same;
}

static void permutation_is_one_and_repeats(void **state)
{
    (void)state;
    int32_t a[IMAGES], b[IMAGES], sorted[IMAGES];
    char seen[IMAGES] = {0};
    for (int32_t i = 0; i < IMAGES; i++)
        sorted[i] = i;
    rng_permutation(11, 0, IMAGES, a);
    for (int32_t i = 0; i < IMAGES; i++) {
        assert_in_range(a[i], 0, IMAGES - 1);
        assert_int_equal(seen[a[i]]++, 0);
    }
    assert_true(in_place(a, sorted) < 10);
    rng_permutation(11, 0, IMAGES, b);
    assert_memory_equal(a, b, sizeof a);
    rng_permutation(11, 1, IMAGES, b);
    assert_true(in_place(a, b) < 10);
    rng_permutation(12, 0, IMAGES, b);
    assert_true(in_place(a, b) < 10);
}

/* All orders of three occur equally often over the epochs. */
static void permutations_are_even(void **state)
{
    (void)state;
    enum { EPOCHS = 6000 };
    int count[3][3] = {{0}};
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int32_t order[3];
        rng_permutation(0, epoch, 3, order);
        count[order[0]][order[1]]++;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            assert_true(i == j ? count[i][j] == 0 : abs(count[i][j] - EPOCHS / 6) < 150);
}

static void small_permutations(void **state)
{
    (void)state;
    int32_t one[2] = {-1, -1};
    rng_permutation(0, 0, 0, one);
    assert_int_equal(one[0], -1);
    rng_permutation(0, 0, 1, one);
    assert_int_equal(one[0], 0);
    assert_int_equal(one[1], -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),           cmocka_unit_test(uniform_has_its_moments),
        cmocka_unit_test(normal_has_its_moments),         cmocka_unit_test(below_is_bounded_and_even),
        cmocka_unit_test(draws_depend_on_every_argument), cmocka_unit_test(permutation_is_one_and_repeats),
        cmocka_unit_test(permutations_are_even),          cmocka_unit_test(small_permutations),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}

/* Whole training steps of a small network on the emulated CUDA device against the reference files: rewrites on and off,
 * captured and not, in each precision. */
#include "base/error.h"
#include "emulated_backend.h"
#include "tools/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
/* cmocka.h needs the three above */
#include <cmocka.h>

static void check_file(const char *reference, dtype activation, compare_options options)
{
    cuda_backend *device;
    assert_int_equal(emulated_backend_open(&device, activation, 4), 0);
    int status = compare_with_reference(&device->base, reference, &options, stdout);
    if (status < 0)
        print_error("%s\n", error_message());
    device->base.ops->close(&device->base);
    assert_int_equal(status, 0);
}

static void check(dtype activation, compare_options options)
{
    check_file(REFERENCE, activation, options);
}

/* In float16 with a loss scale, which the rates must not see. */
static void steps_of_lars(void **state)
{
    (void)state;
    check_file(LARS_REFERENCE, DTYPE_F32, (compare_options){.rewrites = REWRITE_ALL});
    check_file(LARS_REFERENCE, DTYPE_F16, (compare_options){.rewrites = REWRITE_ALL, .capture = true});
}

static void step_with_all_rewrites(void **state)
{
    (void)state;
    check(DTYPE_F32, (compare_options){.rewrites = REWRITE_ALL});
}

static void step_without_rewrites(void **state)
{
    (void)state;
    check(DTYPE_F32, (compare_options){.capture = false});
}

/* The first step of a program runs as it is, the second is captured, the third replayed. */
static void captured_step_of_a_program(void **state)
{
    (void)state;
    check(DTYPE_F32, (compare_options){.rewrites = REWRITE_ALL, .capture = true});
}

static void step_in_float16(void **state)
{
    (void)state;
    check(DTYPE_F16, (compare_options){.rewrites = REWRITE_ALL, .capture = true});
    check(DTYPE_F16, (compare_options){.capture = false});
}

static void step_in_bfloat16(void **state)
{
    (void)state;
    check(DTYPE_BF16, (compare_options){.rewrites = REWRITE_ALL, .capture = true});
    check(DTYPE_BF16, (compare_options){.capture = false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_with_all_rewrites),     cmocka_unit_test(step_without_rewrites),
        cmocka_unit_test(captured_step_of_a_program), cmocka_unit_test(step_in_float16),
        cmocka_unit_test(step_in_bfloat16),           cmocka_unit_test(steps_of_lars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

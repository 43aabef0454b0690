#include "device_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "emulated_backend.h"

void ok(int code)
{
    if (code < 0)
        fail_msg("%s", error_message());
}

void says(int code, int expected, const char *words)
{
    assert_int_equal(code, expected);
    if (!strstr(error_message(), words))
        fail_msg("\"%s\" does not say \"%s\"", error_message(), words);
}

int open_device(void **state)
{
    cuda_backend *device;
    emulated_set_machine(NULL);
    emulated_defer(true);
    ok(emulated_backend_open(&device, DTYPE_F32, 4));
    *state = device;
    return 0;
}

int close_device(void **state)
{
    backend *device = *state;
    device->ops->close(device);
    assert_int_equal(emulated_used(), 0);
    assert_int_equal(emulated_open_ranges(), 0);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    emulated_defer(false);
    emulated_set_machine(NULL);
    return 0;
}

float *device_floats(backend *device, const float *values, size_t count)
{
    float *memory = device->ops->alloc(device, count * sizeof *memory);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    if (values)
        ok(device->ops->write(device, memory, values, count * sizeof *memory));
    return memory;
}

void fill_counting(float *values, size_t count, float first)
{
    for (size_t i = 0; i < count; i++)
        values[i] = first + (float)i;
}

void expect_counting(backend *device, const float *memory, size_t count, float first)
{
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    ok(device->ops->read(device, values, memory, count * sizeof *values));
    for (size_t i = 0; i < count; i++)
        assert_true(values[i] == first + (float)i);
    free(values);
}

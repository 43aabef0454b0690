/* What the tests of the backend's host side share: a backend on the emulated device, which does its work as late as it
 * may, so that a missing wait shows; and device memory with numbers that count up. */
#ifndef TESKD_TESTS_EMULATED_DEVICE_FIXTURE_H
#define TESKD_TESTS_EMULATED_DEVICE_FIXTURE_H

#include <stddef.h>

#include "kernels/backend.h"

enum { COUNT = 64 };

/* Fails the test, with the error's message, where `code` is negative. */
void ok(int code);

/* `code` must be `expected`, and the error's message hold `words`. */
void says(int code, int expected, const char *words);

/* A test's set-up and tear-down; the state is the backend. Nothing may be left on the device. */
int open_device(void **state);
int close_device(void **state);

/* `count` floats of device memory; `values`, unless NULL, are written to them. The caller frees them. */
float *device_floats(backend *device, const float *values, size_t count);

/* first, first + 1, ... */
void fill_counting(float *values, size_t count, float first);
void expect_counting(backend *device, const float *memory, size_t count, float first);

#define ON_DEVICE(test) cmocka_unit_test_setup_teardown(test, open_device, close_device)

#endif

/* What a fuzzer calls with each input; libFuzzer fixes the name. Returns 0; a fault is what ends the process. */
#ifndef TESKD_TESTS_FUZZ_H
#define TESKD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#endif

/* An input as a file: the readers take paths. One file per process, which each input replaces and its end removes. */
#ifndef TESKD_TESTS_FUZZ_INPUT_FILE_H
#define TESKD_TESTS_FUZZ_INPUT_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Ends the process where the file cannot be written. */
const char *input_file(const uint8_t *bytes, size_t count);

#endif

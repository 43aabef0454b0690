/* Reads the header and every tensor of a safetensors file. */
#include "fuzz.h"
#include "input_file.h"
#include "io/file/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    safetensors_file *file;
    if (safetensors_open(&file, input_file(bytes, count)) < 0)
        return 0;
    for (int32_t i = 0; i < safetensors_count(file); i++) {
        const safetensors_info *tensor = safetensors_at(file, i);
        double *values = malloc((size_t)tensor->bytes * sizeof *values + 1); /* an element has a byte at least */
        if (values)
            safetensors_read(file, tensor, values);
        free(values);
    }
    safetensors_close(&file);
    return 0;
}

/* Reads what `teskd reference` reads of a file. HDF5 itself does not withstand every input: as in the program, a child
 * process tries it first, so run libFuzzer with ASAN_OPTIONS=abort_on_error=1, and look at the reports of children. */
#include "fuzz.h"
#include "input_file.h"
#include "io/file/reference_file.h"

#include <stdlib.h>

static void read_file(reference_file *file)
{
    static const char *const datasets[] = {"target", "input_head", "logits", "losses", "float32_error/logits"};
    static const char *const tensors[] = {"conv1.weight", "bn1.running_var"};
    double values[16];
    for (size_t i = 0; i < sizeof datasets / sizeof datasets[0]; i++)
        for (int64_t count = 1; count <= 16; count *= 2)
            reference_read(file, datasets[i], count, values);
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        reference_tensor tensor;
        reference_has(file, "after", tensors[i]);
        if (reference_read_tensor(file, "gradients", tensors[i], &tensor) == 0)
            reference_tensor_free(&tensor);
        if (reference_read_tensor(file, "after", tensors[i], &tensor) == 0)
            reference_tensor_free(&tensor);
    }
    reference_count(file, "gradients");
    reference_count(file, "after");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    reference_file file;
    const char *path = input_file(bytes, count);
    if (reference_try(path) < 0 || reference_open(&file, path) < 0)
        return 0;
    read_file(&file);
    reference_close(&file);
    return 0;
}

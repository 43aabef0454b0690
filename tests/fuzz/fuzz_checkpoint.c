/* Each input three ways: as it is, without its first block, and with a first block that is right for the rest. Reads
 * all that a checkpoint holds. */
#include "base/settings.h"
#include "fuzz.h"
#include "input_file.h"
#include "io/file/tensor_file.h"
#include "tensor_file_private.h"

#include <stdlib.h>
#include <string.h>

static void read_tensors(tensor_file *file)
{
    for (int32_t i = 0; i < tensor_file_count(file); i++) {
        const tensor_info *info = tensor_file_info(file, i);
        size_t elements = tensor_elements(info->rank, info->shape);
        void *values = elements <= 1 << 24 ? malloc(elements * sizeof(double) + 1) : NULL;
        if (values) /* first as it is stored, then converted */
            for (int type = DTYPE_F32; type <= DTYPE_F64; type++)
                tensor_file_read(file, info->name, (dtype)type, info->rank, info->shape, values);
        free(values);
    }
}

static void read_attributes(tensor_file *file)
{
    static const char *const keys[] = {"epoch", "step", "steps_done", "classes", "best_top1", "network", "train_set"};
    char *text;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t number;
        double real;
        tensor_file_get_int(file, keys[i], 0, 1 << 20, &number);
        tensor_file_get_double(file, keys[i], -1, 1, &real);
        if (tensor_file_get_text(file, keys[i], &text) == 0)
            free(text);
    }
    settings saved;
    settings_default(&saved);
    if (tensor_file_get_text(file, "settings", &text) == 0) {
        settings_parse_text(&saved, text, "settings");
        free(text);
    }
}

static void read_file(const uint8_t *bytes, size_t count)
{
    tensor_file *file;
    if (tensor_file_open(&file, input_file(bytes, count)) < 0)
        return;
    read_attributes(file);
    read_tensors(file);
    tensor_file_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    bool sealed = count >= SEAL_BYTES && memcmp(bytes, TENSOR_FILE_FORMAT, sizeof TENSOR_FILE_FORMAT - 1) == 0;
    const uint8_t *rest = sealed ? bytes + SEAL_BYTES : bytes;
    const size_t rest_bytes = sealed ? count - SEAL_BYTES : count;
    uint8_t *resealed = malloc(SEAL_BYTES + rest_bytes);
    if (!resealed || seal_make("input", rest, rest_bytes, resealed) < 0)
        abort();
    if (rest_bytes > 0)
        memcpy(resealed + SEAL_BYTES, rest, rest_bytes);
    read_file(bytes, count);
    read_file(rest, rest_bytes);
    read_file(resealed, SEAL_BYTES + rest_bytes);
    free(resealed);
    return 0;
}

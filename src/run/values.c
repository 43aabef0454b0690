/* Owns the way of values between host and programs. One thread. */
#include "base/error.h"
#include "base/sixteen_bit.h"
#include "run/program.h"

#include <stdlib.h>
#include <string.h>

static double element(const void *values, uint8_t type, int64_t index)
{
    switch (type) {
    case DTYPE_F64:
        return ((const double *)values)[index];
    case DTYPE_F16:
        return (double)float16_value(((const uint16_t *)values)[index]);
    case DTYPE_BF16:
        return (double)bfloat16_value(((const uint16_t *)values)[index]);
    case DTYPE_I32:
        return ((const int32_t *)values)[index];
    default:
        return (double)((const float *)values)[index];
    }
}

typedef struct {
    backend *device;
    size_t bytes;
} pending_write;

static int is_write_ready(void *context, bool *ready)
{
    const pending_write *write = context;
    return write->device->ops->write_ready(write->device, write->bytes, ready);
}

static const program_input *find_input(const program *p, const char *name)
{
    for (int i = 0; i < p->n_inputs; i++)
        if (strcmp(p->inputs[i].name, name) == 0)
            return &p->inputs[i];
    return NULL;
}

int program_write(const program *p, const runtime *r, const char *name, const void *values, size_t bytes)
{
    const program_input *input = find_input(p, name);
    if (!input)
        return 0;
    CHECK(bytes == input->bytes, ERROR_INTERNAL, "%zu bytes for the input %s, which takes %zu", bytes, name,
          input->bytes);
    backend *device = r->options.device;
    if (device->ops->write_ready)
        TRY(runtime_await(r, is_write_ready, &(pending_write){device, bytes}));
    return device->ops->write(device, input->memory, values, bytes);
}

int program_read(const program *p, const runtime *r, const char *name, double *values)
{
    const tensor_desc *desc = NULL;
    backend *device = r->options.device;
    const void *memory = program_value(p, r, name, &desc);
    CHECK(memory, ERROR_INTERNAL, "the program has no value \"%s\"", name);
    TRY(runtime_synchronize(r));
    void *staged = malloc(tensor_bytes(desc));
    CHECK(staged, ERROR_MEMORY, "no memory to read %s", name);
    int status = device->ops->read(device, staged, memory, tensor_bytes(desc));
    for (int64_t i = 0; status == 0 && i < tensor_count(desc); i++)
        values[i] = element(staged, desc->dtype, i);
    free(staged);
    return status;
}

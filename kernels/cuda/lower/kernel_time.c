/* Owns the measurement of a prepared kernel, on memory that is taken for it. One thread. */
#include "cuda_backend.h"
#include "product_plan.h"

#include <math.h>

typedef struct {
    const cuda_backend *device;
    const kernel *k;
    kernel_args args;
} timed_kernel;

static int launch(const void *what)
{
    const timed_kernel *t = what;
    return t->k->launch(t->device, t->k, &t->args);
}

static char *place(char *memory, size_t *used, size_t bytes)
{
    size_t offset = cuda_workspace_take(used, bytes);
    return memory ? memory + offset : NULL;
}

/* Of a tensor and what lies in its rows. */
static size_t bytes_of_rows(const tensor_desc *t)
{
    return (size_t)(tensor_rows(t) * tensor_row_stride(t)) * dtype_bytes(t->dtype);
}

/* Lays the operands out from `memory` on; returns the bytes they take. */
static size_t place_operands(const kernel_request *r, size_t workspace, char *memory, kernel_args *args)
{
    size_t used = 0;
    for (int i = 0; i < NODE_MAX_IN; i++) {
        const tensor_desc *in = &r->in[i], *before = i > 0 ? &r->in[i - 1] : NULL;
        if (before && product_is_beside(before, in))
            args->in[i] =
                memory ? (const char *)args->in[i - 1] + (size_t)before->dim[3] * dtype_bytes(in->dtype) : NULL;
        else if (tensor_count(in) > 0)
            args->in[i] = place(memory, &used, bytes_of_rows(in));
    }
    for (int i = 0; i < NODE_MAX_OUT; i++)
        if (tensor_count(&r->out[i]) > 0)
            args->out[i] = place(memory, &used, tensor_bytes(&r->out[i]));
    args->workspace = place(memory, &used, workspace);
    return used;
}

float cuda_kernel_time(cuda_backend *self, const kernel *k, size_t workspace)
{
    timed_kernel t = {.device = self, .k = k};
    void *memory = NULL;
    size_t bytes = place_operands(&k->request, workspace, NULL, &t.args);
    if (!cuda_timing_memory(self->stream, 1, &bytes, &memory))
        return NAN;
    place_operands(&k->request, workspace, memory, &t.args);
    float time = cuda_time_work(&self->timer, launch, &t, INFINITY);
    cudaFree(memory);
    return time;
}

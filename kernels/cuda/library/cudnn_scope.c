/* Owns the chained building of cuDNN's descriptors. Invariant: after a failure a scope makes and changes nothing until
 * its status is taken. One thread per scope. */
#include "cudnn_scope.h"
#include "base/error.h"

#include <stdlib.h>

void cudnn_scope_init(cudnn_scope *s, const cuda_libraries *api)
{
    *s = (cudnn_scope){.api = api};
}

void cudnn_scope_free(cudnn_scope *s)
{
    for (int i = s->count; i-- > 0;)
        s->api->cudnnBackendDestroyDescriptor(s->owned[i]);
    free(s->owned);
    *s = (cudnn_scope){.api = s->api};
}

int cudnn_check(const cuda_libraries *api, cudnnStatus_t status, const char *what)
{
    char text[256] = "";
    if (status == CUDNN_STATUS_SUCCESS)
        return 0;
    api->cudnnGetLastErrorString(text, sizeof text);
    return error_set(ERROR_KERNEL, "%s: %s%s%s", what, api->cudnnGetErrorString(status), *text ? ": " : "", text);
}

static int make_room(cudnn_scope *s)
{
    enum { FIRST = 16 };
    if (s->count < s->capacity)
        return 0;
    int capacity = s->capacity ? 2 * s->capacity : FIRST;
    cudnnBackendDescriptor_t *owned = realloc(s->owned, (size_t)capacity * sizeof(*owned));
    CHECK(owned, ERROR_MEMORY, "no memory for cuDNN's descriptors");
    s->owned = owned;
    s->capacity = capacity;
    return 0;
}

void cudnn_scope_move(cudnn_scope *from, cudnn_scope *to, cudnnBackendDescriptor_t d)
{
    if (to->status == 0)
        to->status = make_room(to);
    for (int i = 0; i < from->count && to->status == 0; i++)
        if (from->owned[i] == d) {
            to->owned[to->count++] = d;
            from->owned[i] = from->owned[--from->count];
            return;
        }
}

cudnnBackendDescriptor_t cudnn_new(cudnn_scope *s, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (s->status == 0)
        s->status = make_room(s);
    if (s->status == 0)
        s->status = cudnn_check(s->api, s->api->cudnnBackendCreateDescriptor(type, &d), "a cuDNN descriptor");
    if (s->status < 0)
        return NULL;
    s->owned[s->count++] = d;
    return d;
}

void cudnn_set(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (s->status == 0)
        s->status = cudnn_check(s->api, s->api->cudnnBackendSetAttribute(d, name, type, count, values),
                                "an attribute of a cuDNN descriptor");
}

void cudnn_set_ints(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, int64_t count,
                    const int64_t *values)
{
    cudnn_set(s, d, name, CUDNN_TYPE_INT64, count, values);
}

void cudnn_set_descriptor(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendDescriptor_t value)
{
    cudnn_set(s, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void cudnn_finalize(cudnn_scope *s, cudnnBackendDescriptor_t d, const char *what)
{
    if (s->status == 0)
        s->status = cudnn_check(s->api, s->api->cudnnBackendFinalize(d), what);
}

int cudnn_scope_status(cudnn_scope *s)
{
    int status = s->status;
    s->status = 0;
    return status;
}

/* Descriptors of cuDNN's graph API, built in a chain. The first failure is kept in the scope and later calls do
 * nothing, so that a graph can be written down without a check per line. The scope owns every descriptor it made. */
#ifndef TESKD_KERNELS_CUDA_CUDNN_SCOPE_H
#define TESKD_KERNELS_CUDA_CUDNN_SCOPE_H

#include "libraries.h"

#include <stdint.h>

typedef struct {
    const cuda_libraries *api;
    int status;
    int count, capacity;
    cudnnBackendDescriptor_t *owned;
} cudnn_scope;

void cudnn_scope_init(cudnn_scope *s, const cuda_libraries *api);
void cudnn_scope_free(cudnn_scope *s);

/* Gives a descriptor of `from` to `to`, which outlives it. */
void cudnn_scope_move(cudnn_scope *from, cudnn_scope *to, cudnnBackendDescriptor_t d);

/* 0, or ERROR_KERNEL with "what: cuDNN's text". */
int cudnn_check(const cuda_libraries *api, cudnnStatus_t status, const char *what);

/* A new descriptor; NULL after a failure. */
cudnnBackendDescriptor_t cudnn_new(cudnn_scope *s, cudnnBackendDescriptorType_t type);

void cudnn_set(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t count, const void *values);
void cudnn_set_ints(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, int64_t count,
                    const int64_t *values);
void cudnn_set_descriptor(cudnn_scope *s, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendDescriptor_t value);

/* `what` is for the message of a failure. */
void cudnn_finalize(cudnn_scope *s, cudnnBackendDescriptor_t d, const char *what);

/* The scope's status; afterwards it is ready for more. */
int cudnn_scope_status(cudnn_scope *s);

#endif

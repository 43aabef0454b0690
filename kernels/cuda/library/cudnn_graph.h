/* A convolution as an operation graph of cuDNN. */
#ifndef TESKD_KERNELS_CUDA_CUDNN_CONVOLUTION_H
#define TESKD_KERNELS_CUDA_CUDNN_CONVOLUTION_H

#include "cudnn_scope.h"
#include "kernels/cuda/lower/convolutions.h"

/* The names of its tensors, for the pointers of a run. */
enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_PRODUCT, UID_SUM, UID_SQUARE_SUM };

/* Owned by the scope, whose status says whether it is right. Pointers must be aligned to 16 bytes. */
cudnnBackendDescriptor_t cudnn_convolution_graph(cudnn_scope *s, const cuda_convolution_desc *desc);

#endif

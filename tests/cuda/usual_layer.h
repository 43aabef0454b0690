/* The convolution that plans are chosen for where any would do: a 3×3 layer of a CIFAR network. */
#ifndef TESKD_TESTS_CUDA_USUAL_LAYER_H
#define TESKD_TESTS_CUDA_USUAL_LAYER_H

#include "kernels/cuda/library/cudnn_convolutions.h"

static const cuda_convolution_desc usual_layer = {.kind = CUDA_CONVOLUTION_FORWARD,
                                                  .batch = 128,
                                                  .height = 32,
                                                  .width = 32,
                                                  .channels = 64,
                                                  .out_height = 32,
                                                  .out_width = 32,
                                                  .out_channels = 64,
                                                  .kernel = 3,
                                                  .stride = 1,
                                                  .pad = 1,
                                                  .groups = 1,
                                                  .type = DTYPE_F16};

#endif

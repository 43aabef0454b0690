/* A library with cuDNN's name: every function answers a version, which is an old one, 9.0, unless it is said; or it has
 * no functions at all. */
#ifndef FAKE_VERSION
#define FAKE_VERSION 90000
#endif
#ifndef FAKE_WITHOUT_FUNCTIONS
#define FUNCTION(library, name) FAKE_##library(name)
#define FAKE_CUDA_CUDNN(name)                                                                                          \
    unsigned long name(void);                                                                                          \
    unsigned long name(void)                                                                                           \
    {                                                                                                                  \
        return FAKE_VERSION;                                                                                           \
    }
#define FAKE_CUDA_CUBLASLT(name)
#define FAKE_CUDA_NVRTC(name)
#include "kernels/cuda/library/libraries.def"
#else
extern const int fake_cudnn;
const int fake_cudnn = 1;
#endif

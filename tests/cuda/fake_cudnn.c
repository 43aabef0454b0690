/* A library with cuDNN's name: every function answers 90000, which is version 9.0; or it has no functions at all. */
#ifndef FAKE_WITHOUT_FUNCTIONS
#define FUNCTION(library, name) FAKE_##library(name)
#define FAKE_CUDA_CUDNN(name)                                                                                          \
    unsigned long name(void);                                                                                          \
    unsigned long name(void)                                                                                           \
    {                                                                                                                  \
        return 90000;                                                                                                  \
    }
#define FAKE_CUDA_CUBLASLT(name)
#define FAKE_CUDA_NVRTC(name)
#include "libraries.def"
#else
extern const int fake_cudnn;
const int fake_cudnn = 1;
#endif

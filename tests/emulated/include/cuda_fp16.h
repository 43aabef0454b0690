/* float16 with the conversions that kernels use. */
#ifndef TESKD_TESTS_EMULATED_CUDA_FP16_H
#define TESKD_TESTS_EMULATED_CUDA_FP16_H

#include "base/sixteen_bit.h"

struct __half {
    uint16_t bits;
};

inline float __half2float(__half x)
{
    return float16_value(x.bits);
}

inline __half __float2half_rn(float x)
{
    return __half{float16_from(x)};
}

#endif

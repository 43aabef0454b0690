/* bfloat16 with the conversions that kernels use. */
#ifndef TESKD_TESTS_EMULATED_CUDA_BF16_H
#define TESKD_TESTS_EMULATED_CUDA_BF16_H

#include "base/sixteen_bit.h"

struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x)
{
    return bfloat16_value(x.bits);
}

inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return __nv_bfloat16{bfloat16_from(x)};
}

#endif

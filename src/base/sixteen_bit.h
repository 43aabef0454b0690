/* float16 and bfloat16 as bits: conversions from float32 with round to nearest, ties to even, and back. C and C++. */
#ifndef TESKD_BASE_SIXTEEN_BIT_H
#define TESKD_BASE_SIXTEEN_BIT_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float32_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint16_t float16_from(float x)
{
    enum { INFINITE = 0x7F800000, OVERFLOWS = 0x477FF000, NORMAL = 0x38800000, REBIAS = 0x38000000 };
    uint32_t bits = float32_bits(x), sign = bits >> 16 & 0x8000u;
    bits &= 0x7FFFFFFFu;
    if (bits > INFINITE)
        return (uint16_t)(sign | 0x7E00u);
    if (bits >= OVERFLOWS)
        return (uint16_t)(sign | 0x7C00u);
    if (bits < NORMAL) /* one half has units of 2^-24, those of a denormal float16: the addition rounds */
        return (uint16_t)(sign | (float32_bits(float32_of(bits) + 0.5f) - float32_bits(0.5f)));
    bits += 0xFFFu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (bits - REBIAS) >> 13);
}

static inline float float16_value(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 0x3FFu;
    if (exponent == 31)
        return float32_of(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0)
        return float32_of(sign | float32_bits((float)mantissa * 0x1p-24f));
    return float32_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline uint16_t bfloat16_from(float x)
{
    uint32_t bits = float32_bits(x);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline float bfloat16_value(uint16_t brain)
{
    return float32_of((uint32_t)brain << 16);
}

#endif

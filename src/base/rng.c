/* Owns nothing. Invariant: no state, so equal arguments give equal bits on every machine (rng_normal: up to the
 * rounding of the C library's log and cos). Threads: any, at any time. */
#include "base/rng.h"

#include <math.h>

enum { ROUNDS = 10 };

static const double TWO_PI = 6.283185307179586;

static uint64_t low_high(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* The upper 53 bits as a fraction. */
static double unit_interval(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

void rng_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void draw(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bits[2])
{
    const uint32_t index_high = (uint32_t)(index >> 32), stream_high = (uint32_t)(stream >> 32);
    const uint32_t counter[4] = {(uint32_t)index, index_high, (uint32_t)stream, stream_high};
    uint32_t block[4] = {0};
    rng_philox(seed, counter, block);
    bits[0] = low_high(block[0], block[1]);
    bits[1] = low_high(block[2], block[3]);
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t bits[2];
    draw(seed, stream, index, bits);
    return unit_interval(bits[0]);
}

uint32_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint32_t n)
{
    uint64_t bits[2];
    draw(seed, stream, index, bits);
    /* floor(bits * n / 2^64) without 128-bit arithmetic */
    uint64_t low = (bits[0] & 0xffffffffu) * n >> 32;
    return (uint32_t)(((bits[0] >> 32) * n + low) >> 32);
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t bits[2];
    draw(seed, stream, index, bits);
    double radius = sqrt(-2.0 * log(1.0 - unit_interval(bits[0]))); /* 1 - u is never 0 */
    return radius * cos(TWO_PI * unit_interval(bits[1]));
}

void rng_permutation(uint64_t seed, uint64_t epoch, int32_t n, int32_t *out)
{
    const uint64_t stream = rng_stream(RNG_ORDER, epoch);
    for (int32_t i = 0; i < n; i++) {
        const uint32_t j = rng_below(seed, stream, (uint64_t)i, (uint32_t)i + 1);
        out[i] = i;
        out[i] = out[j];
        out[j] = i;
    }
}

/* Random numbers without a state: every draw is a pure function of its arguments (Philox4x32-10).
 *
 * A draw is addressed by (seed, stream, index), so it does not depend on the number of threads or
 * ranks, nor on what was drawn before. Two uses that must be independent take two streams.
 */
#ifndef TESKD_BASE_RNG_H
#define TESKD_BASE_RNG_H

#include <stdint.h>

/* What a stream is for; keeps the uses of one seed apart. */
typedef enum { RNG_ORDER = 1, RNG_AUGMENTATION, RNG_INITIALISATION, RNG_SYNTHETIC, RNG_CROP, RNG_BLOCKS } rng_purpose;

/* The stream of a purpose and a number below 2^56 (an epoch, a tensor, a class). */
static inline uint64_t rng_stream(rng_purpose purpose, uint64_t number)
{
    return (uint64_t)purpose << 56 | (number & 0x00ffffffffffffffu);
}

/* One block of 128 random bits. The low half of `key` is the first key word. */
void rng_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4]);

/* In [0, 1), a multiple of 2^-53. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* In [0, n), n >= 1; no value is favoured by more than n / 2^64. */
uint32_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint32_t n);

/* Normal with mean 0 and variance 1 (Box-Muller). */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* Fills out[0..n) with an order of 0..n-1; another one for each (seed, epoch). n may be 0. */
void rng_permutation(uint64_t seed, uint64_t epoch, int32_t n, int32_t *out);

#endif

/* Owns the loops of the scaling for AVX2 and AVX-512, from one source that is compiled for either; RESAMPLE_TABLE and
 * RESAMPLE_NAME come from the build. Invariant: sums are the same integers as in resample_plain.c, up to multiples of
 * 2^32 on the way. Stateless; any thread.
 *
 * A multiplication takes two 16-bit numbers and adds two products. So the bytes of two neighbours go side by side, and
 * are multiplied once with the lower and once with the upper halves of their weights. */
#include "resample.h"

#include <immintrin.h>
#include <string.h>

enum { HALF = 1 << (RESAMPLE_BITS - 1) };

/* Two halves of a weight each, as one number to be broadcast. */
static inline int32_t pair_of(const int16_t *halves)
{
    int32_t pair;
    memcpy(&pair, halves, sizeof pair);
    return pair;
}

/* One pair in the lower lane, another in the upper one. */
static inline __m256i two_pairs(const int16_t *lower, const int16_t *upper)
{
    return _mm256_blend_epi32(_mm256_set1_epi32(pair_of(lower)), _mm256_set1_epi32(pair_of(upper)), 0xf0);
}

/* Sums of two output pixels, one a lane, in their two halves. */
typedef struct {
    __m256i low, high;
} two_sums;

static inline void add_products(two_sums *sums, __m256i pixels, __m256i low, __m256i high)
{
    sums->low = _mm256_add_epi32(sums->low, _mm256_madd_epi16(pixels, low));
    sums->high = _mm256_add_epi32(sums->high, _mm256_madd_epi16(pixels, high));
}

static inline __m256i rounded(const two_sums *sums)
{
    const __m256i sum = _mm256_add_epi32(sums->low, _mm256_slli_epi32(sums->high, RESAMPLE_LOW));
    return _mm256_srai_epi32(sum, RESAMPLE_BITS);
}

/* Four pixels at either place, one place a lane. */
static inline __m256i load_two(const uint8_t *lower, const uint8_t *upper)
{
    const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)lower));
    return _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *)upper), 1);
}

/* Shuffles that put the channels of pixels 0 and 1, or 2 and 3, of a lane side by side as 16-bit numbers. */
static inline __m256i neighbours(int first)
{
    const char a = (char)(4 * first), b = (char)(a + 4);
    const char r = a, g = (char)(a + 1), h = (char)(a + 2), x = (char)(a + 3);
    const char s = b, t = (char)(b + 1), u = (char)(b + 2), y = (char)(b + 3);
    return _mm256_setr_epi8(r, -1, s, -1, g, -1, t, -1, h, -1, u, -1, x, -1, y, -1, r, -1, s, -1, g, -1, t, -1, h, -1,
                            u, -1, x, -1, y, -1);
}

/* Writes two pixels of each row, 6 bytes, and two bytes past them. */
static inline void store_two(const two_sums sums[RESAMPLE_ROWS], uint8_t *const *out, int32_t at)
{
    const __m256i by_row = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i rgb = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, -1, -1, 8, 9, 10, 12, 13, 14, -1, -1, 0, 1, 2, 4, 5, 6, -1,
                                         -1, 8, 9, 10, 12, 13, 14, -1, -1);
    const __m256i upper = _mm256_packs_epi32(rounded(&sums[0]), rounded(&sums[1]));
    const __m256i lower = _mm256_packs_epi32(rounded(&sums[2]), rounded(&sums[3]));
    const __m256i bytes = _mm256_packus_epi16(upper, lower);
    const __m256i rows = _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(bytes, by_row), rgb);
    const __m128i first = _mm256_castsi256_si128(rows), second = _mm256_extracti128_si256(rows, 1);
    _mm_storel_epi64((__m128i *)(out[0] + at), first);
    _mm_storel_epi64((__m128i *)(out[1] + at), _mm_unpackhi_epi64(first, first));
    _mm_storel_epi64((__m128i *)(out[2] + at), second);
    _mm_storel_epi64((__m128i *)(out[3] + at), _mm_unpackhi_epi64(second, second));
}

/* Outputs `i` and `j` of all rows. */
static inline void two_across(const uint8_t *const *in, const resample_axis *axis, int32_t groups, int32_t i, int32_t j,
                              two_sums sums[RESAMPLE_ROWS])
{
    const resample_weights *a = axis->weights + (size_t)i * (size_t)groups;
    const resample_weights *b = axis->weights + (size_t)j * (size_t)groups;
    const __m256i left = neighbours(0), right = neighbours(2);
    size_t from_a = (size_t)axis->spans[i].first * RESAMPLE_PIXEL,
           from_b = (size_t)axis->spans[j].first * RESAMPLE_PIXEL;
    for (int32_t group = 0; group < groups; group++, a++, b++) {
        const __m256i low_left = two_pairs(a->low, b->low), low_right = two_pairs(a->low + 2, b->low + 2);
        const __m256i high_left = two_pairs(a->high, b->high), high_right = two_pairs(a->high + 2, b->high + 2);
        for (int row = 0; row < RESAMPLE_ROWS; row++) {
            const __m256i pixels = load_two(in[row] + from_a, in[row] + from_b);
            add_products(&sums[row], _mm256_shuffle_epi8(pixels, left), low_left, high_left);
            add_products(&sums[row], _mm256_shuffle_epi8(pixels, right), low_right, high_right);
        }
        from_a += (size_t)RESAMPLE_GROUP * RESAMPLE_PIXEL;
        from_b += (size_t)RESAMPLE_GROUP * RESAMPLE_PIXEL;
    }
}

static inline void all_across(const uint8_t *const *in, const resample_axis *axis, int32_t groups, uint8_t *const *out)
{
    for (int32_t i = 0; i < axis->outputs; i += 2) {
        const int32_t j = i + 1 < axis->outputs ? i + 1 : i;
        two_sums sums[RESAMPLE_ROWS];
        for (int row = 0; row < RESAMPLE_ROWS; row++)
            sums[row] = (two_sums){.low = _mm256_set1_epi32(HALF), .high = _mm256_setzero_si256()};
        two_across(in, axis, groups, i, j, sums);
        store_two(sums, out, i * IMAGE_CHANNELS);
    }
}

/* The usual numbers of groups are spelled out, so that their sums stay in registers. */
static void across(const uint8_t *const *in, const resample_axis *axis, uint8_t *const *out)
{
    if (axis->groups == 1)
        all_across(in, axis, 1, out);
    else if (axis->groups == 2)
        all_across(in, axis, 2, out);
    else
        all_across(in, axis, axis->groups, out);
}

static void pack(const uint8_t *in, int32_t pixels, uint8_t *out)
{
    const __m128i rgb = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    for (int32_t i = 0; i < pixels; i += 4, in += 4 * RESAMPLE_PIXEL, out += 4 * IMAGE_CHANNELS)
        _mm_storeu_si128((__m128i *)out, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)in), rgb));
}

/* Every operation below keeps to its 128-bit lane, so any width does the same. */
#if defined(__AVX512BW__)
typedef __m512i vector;
#define VECTOR(operation) _mm512_##operation
#define ZERO _mm512_setzero_si512()
#define LOAD(from) _mm512_loadu_si512(from)
#define STORE(to, value) _mm512_storeu_si512(to, value)
#else
typedef __m256i vector;
#define VECTOR(operation) _mm256_##operation
#define ZERO _mm256_setzero_si256()
#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))
#define STORE(to, value) _mm256_storeu_si256((__m256i *)(to), value)
#endif

/* Sums of the first, second, third and last four bytes of every lane. */
typedef struct {
    vector low[4], high[4];
} lane_sums;

static inline void add_rows(lane_sums *sums, vector a, vector b, vector low, vector high)
{
    const vector first = VECTOR(unpacklo_epi8)(a, b), second = VECTOR(unpackhi_epi8)(a, b);
    const vector pairs[] = {VECTOR(unpacklo_epi8)(first, ZERO), VECTOR(unpackhi_epi8)(first, ZERO),
                            VECTOR(unpacklo_epi8)(second, ZERO), VECTOR(unpackhi_epi8)(second, ZERO)};
    for (int i = 0; i < 4; i++) {
        sums->low[i] = VECTOR(add_epi32)(sums->low[i], VECTOR(madd_epi16)(pairs[i], low));
        sums->high[i] = VECTOR(add_epi32)(sums->high[i], VECTOR(madd_epi16)(pairs[i], high));
    }
}

static inline vector lane_bytes(const lane_sums *sums)
{
    vector whole[4];
    for (int i = 0; i < 4; i++) {
        const vector sum = VECTOR(add_epi32)(sums->low[i], VECTOR(slli_epi32)(sums->high[i], RESAMPLE_LOW));
        whole[i] = VECTOR(srai_epi32)(sum, RESAMPLE_BITS);
    }
    return VECTOR(packus_epi16)(VECTOR(packs_epi32)(whole[0], whole[1]), VECTOR(packs_epi32)(whole[2], whole[3]));
}

static inline vector block_down(const uint8_t *const *rows, int32_t taps, const resample_weights *weights, int32_t at)
{
    lane_sums sums;
    for (int i = 0; i < 4; i++) {
        sums.low[i] = VECTOR(set1_epi32)(HALF);
        sums.high[i] = ZERO;
    }
    for (int32_t tap = 0; tap < taps; tap += 2) {
        const resample_weights *group = weights + tap / RESAMPLE_GROUP;
        const vector low = VECTOR(set1_epi32)(pair_of(group->low + tap % RESAMPLE_GROUP));
        const vector high = VECTOR(set1_epi32)(pair_of(group->high + tap % RESAMPLE_GROUP));
        add_rows(&sums, LOAD(rows[tap] + at), LOAD(rows[tap + 1] + at), low, high);
    }
    return lane_bytes(&sums);
}

/* The last block ends where the row ends: it makes some bytes again, or, of a row shorter than it, some too many. */
static void down(const uint8_t *const *rows, int32_t taps, const resample_weights *weights, int32_t bytes, uint8_t *out)
{
    const int32_t step = (int32_t)sizeof(vector), last = bytes - step;
    for (int32_t at = 0; at < last; at += step)
        STORE(out + at, block_down(rows, taps, weights, at));
    if (last >= 0) {
        STORE(out + last, block_down(rows, taps, weights, last));
        return;
    }
    uint8_t block[sizeof(vector)];
    STORE(block, block_down(rows, taps, weights, 0));
    memcpy(out, block, (size_t)bytes);
}

const resample_kernels RESAMPLE_TABLE = {.name = RESAMPLE_NAME, .across = across, .pack = pack, .down = down};

/* Owns the loops of the scaling in plain C: what the others are held against, and what any processor can do. Invariant:
 * see resample.h. Stateless; any thread. */
#include "resample.h"

static uint8_t to_byte(int32_t sum)
{
    const int32_t rounded = sum >> RESAMPLE_BITS;
    return (uint8_t)(rounded > UINT8_MAX ? UINT8_MAX : rounded);
}

static int32_t weight_at(const resample_weights *groups, int32_t tap)
{
    const resample_weights *group = groups + tap / RESAMPLE_GROUP;
    const int at = tap % RESAMPLE_GROUP;
    return group->high[at] * (1 << RESAMPLE_LOW) + group->low[at];
}

enum { HALF = 1 << (RESAMPLE_BITS - 1) };

static void pixel_across(const uint8_t *in, int32_t taps, const resample_weights *weights, uint8_t *out)
{
    int32_t sum[IMAGE_CHANNELS] = {HALF, HALF, HALF};
    for (int32_t i = 0; i < taps; i++, in += RESAMPLE_PIXEL) {
        const int32_t weight = weight_at(weights, i);
        for (int c = 0; c < IMAGE_CHANNELS; c++)
            sum[c] += weight * in[c];
    }
    for (int c = 0; c < IMAGE_CHANNELS; c++)
        out[c] = to_byte(sum[c]);
}

static void across(const uint8_t *const *in, const resample_axis *axis, uint8_t *const *out)
{
    for (int row = 0; row < RESAMPLE_ROWS; row++) {
        const resample_weights *weights = axis->weights;
        uint8_t *to = out[row];
        for (int32_t i = 0; i < axis->outputs; i++, weights += axis->groups, to += IMAGE_CHANNELS)
            pixel_across(in[row] + (size_t)axis->spans[i].first * RESAMPLE_PIXEL, axis->spans[i].taps, weights, to);
    }
}

static void pack(const uint8_t *in, int32_t pixels, uint8_t *out)
{
    for (int32_t i = 0; i < pixels; i++, in += RESAMPLE_PIXEL, out += IMAGE_CHANNELS)
        for (int c = 0; c < IMAGE_CHANNELS; c++)
            out[c] = in[c];
}

static void down(const uint8_t *const *rows, int32_t taps, const resample_weights *weights, int32_t bytes, uint8_t *out)
{
    enum { BLOCK = 64 };
    for (int32_t at = 0; at < bytes; at += BLOCK) {
        const int32_t n = bytes - at < BLOCK ? bytes - at : BLOCK;
        int32_t sum[BLOCK];
        for (int32_t i = 0; i < n; i++)
            sum[i] = HALF;
        for (int32_t tap = 0; tap < taps; tap++) {
            const int32_t weight = weight_at(weights, tap);
            for (int32_t i = 0; i < n; i++)
                sum[i] += weight * rows[tap][at + i];
        }
        for (int32_t i = 0; i < n; i++)
            out[at + i] = to_byte(sum[i]);
    }
}

const resample_kernels resample_plain = {.name = "plain", .across = across, .pack = pack, .down = down};

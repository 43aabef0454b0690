/* Owns the arithmetic of sums over ranks. Invariant: an element's sum depends on its parts and their order alone, so it
 * has the same bits wherever it is made. */
#include "add.h"

#include "base/sixteen_bit.h"

#include <string.h>

static void add_f32(float *restrict sum, const float *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

static void add_f64(double *restrict sum, const double *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

/* Unsigned, so that an overflow wraps. */
static void add_i64(uint64_t *restrict sum, const uint64_t *restrict values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += values[i];
}

static float value_of_16(uint16_t bits, comm_dtype type)
{
    return type == COMM_F16 ? float16_value(bits) : bfloat16_value(bits);
}

static void add_16(uint16_t *sum, const void *const *part, int parts, size_t n, comm_dtype type)
{
    for (size_t i = 0; i < n; i++) {
        float total = value_of_16(((const uint16_t *)part[0])[i], type);
        for (int p = 1; p < parts; p++)
            total += value_of_16(((const uint16_t *)part[p])[i], type);
        sum[i] = type == COMM_F16 ? float16_from(total) : bfloat16_from(total);
    }
}

static void add_wide(void *sum, const void *part, size_t n, comm_dtype type)
{
    if (type == COMM_F32)
        add_f32(sum, part, n);
    else if (type == COMM_F64)
        add_f64(sum, part, n);
    else
        add_i64(sum, part, n);
}

/* A piece at a time, so that the sum stays in the cache until the last part is added. */
void add_in_order(void *sum, const void *const *part, int parts, size_t count, comm_dtype type)
{
    if (comm_dtype_bytes(type) == 2) {
        add_16(sum, part, parts, count, type);
        return;
    }
    enum { PIECE = 4096 };
    const size_t bytes = comm_dtype_bytes(type);
    for (size_t at = 0; at < count; at += PIECE) {
        const size_t n = count - at < PIECE ? count - at : PIECE;
        char *to = (char *)sum + at * bytes;
        if (sum != part[0])
            memcpy(to, (const char *)part[0] + at * bytes, n * bytes);
        for (int p = 1; p < parts; p++)
            add_wide(to, (const char *)part[p] + at * bytes, n, type);
    }
}

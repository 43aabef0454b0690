/* Sums over several hosts: who owns what, and the bits. The ranks of this test are on one host and are grouped as if
 * they were on several. */
#include "add.h"
#include "base/error.h"
#include "base/sixteen_bit.h"
#include "comm_mpi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS_MOST = 6 };

/* The lowest rank on each rank's host. */
typedef struct {
    int size, leader[RANKS_MOST];
    int hosts, per_host; /* of the groups; uneven hosts are one group */
} layout;

static const layout layouts[] = {{1, {0}, 1, 1},
                                 {2, {0, 0}, 1, 2},
                                 {2, {0, 1}, 1, 2},
                                 {3, {0, 0, 2}, 1, 3},
                                 {3, {0, 1, 2}, 1, 3},
                                 {4, {0, 0, 0, 0}, 1, 4},
                                 {4, {0, 0, 2, 2}, 2, 2},
                                 {4, {0, 1, 0, 1}, 2, 2},
                                 {4, {0, 1, 1, 0}, 2, 2},
                                 {4, {0, 0, 0, 3}, 1, 4},
                                 {5, {0, 0, 2, 2, 4}, 1, 5},
                                 {5, {0, 0, 0, 0, 0}, 1, 5},
                                 {6, {0, 0, 2, 2, 4, 4}, 3, 2},
                                 {6, {0, 1, 0, 1, 0, 1}, 2, 3}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static void groups_are_the_hosts(void **state)
{
    (void)state;
    for (const layout *l = layouts; l < layouts + LAYOUTS; l++)
        for (int rank = 0; rank < l->size; rank++) {
            host_groups g;
            bool seen[RANKS_MOST] = {false};
            assert_int_equal(host_groups_make(&g, l->leader, l->size, rank), 0);
            assert_int_equal(g.hosts, l->hosts);
            assert_int_equal(g.per_host, l->per_host);
            assert_int_equal(g.rank[g.host * g.per_host + g.place], rank);
            for (int i = 0; i < l->size; i++) {
                assert_false(seen[g.rank[i]]);
                seen[g.rank[i]] = true;
                const bool first = i % g.per_host == 0;
                assert_true(first || g.rank[i] > g.rank[i - 1]);
                assert_true(first || g.hosts == 1 || l->leader[g.rank[i]] == l->leader[g.rank[i - 1]]);
            }
            host_groups_free(&g);
        }
}

static void slices_lie_end_to_end(void **state)
{
    (void)state;
    const size_t counts[] = {0, 1, 2, 5, 6, 7, 100003};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int slices = 1; slices <= RANKS_MOST; slices++) {
            assert_int_equal(slice_start(counts[c], slices, 0), 0);
            assert_int_equal(slice_start(counts[c], slices, slices), counts[c]);
            for (int i = 0; i < slices; i++) {
                size_t n = slice_start(counts[c], slices, i + 1) - slice_start(counts[c], slices, i);
                assert_in_range(n, counts[c] / (size_t)slices, counts[c] / (size_t)slices + 1);
            }
        }
}

/* ---- arithmetic ---- */

/* Any value whose sum depends on the order of addition. */
static double sample(int rank, size_t i)
{
    uint64_t h = (i + 1) * 0x9E3779B97F4A7C15u + (uint64_t)(rank + 1) * 0xD1B54A32D192ED03u;
    h = (h ^ (h >> 31)) * 0xBF58476D1CE4E5B9u;
    return (rank % 2 ? 300.0 : 1.0) * ((double)(h >> 11) * 0x1p-53 - 0.5);
}

typedef union {
    float f32;
    double f64;
    int64_t i64;
    uint16_t b16;
} number;

static number sampled(int rank, size_t i, comm_dtype type)
{
    const double x = sample(rank, i);
    switch (type) {
    case COMM_F32:
        return (number){.f32 = (float)x};
    case COMM_F64:
        return (number){.f64 = x};
    case COMM_I64:
        return (number){.i64 = (int64_t)(x * 1e9)};
    case COMM_F16:
        return (number){.b16 = float16_from((float)x)};
    default:
        return (number){.b16 = bfloat16_from((float)x)};
    }
}

static float value_16(number x, comm_dtype type)
{
    return type == COMM_F16 ? float16_value(x.b16) : bfloat16_value(x.b16);
}

/* The sum of `n` numbers in their order. */
static number total(const number *x, int n, comm_dtype type)
{
    number sum = x[0];
    float wide = value_16(x[0], type);
    for (int i = 1; i < n; i++) {
        if (type == COMM_F32)
            sum.f32 += x[i].f32;
        else if (type == COMM_F64)
            sum.f64 += x[i].f64;
        else if (type == COMM_I64)
            sum.i64 += x[i].i64;
        else
            wide += value_16(x[i], type);
    }
    if (comm_dtype_bytes(type) == 2)
        sum.b16 = type == COMM_F16 ? float16_from(wide) : bfloat16_from(wide);
    return sum;
}

/* As the ranks are laid out: inside each host in rank order, then over the hosts; all in rank order if uneven. */
static number expected_sum(const layout *l, size_t i, comm_dtype type)
{
    number sums[RANKS_MOST], mine[RANKS_MOST];
    int hosts = 0;
    for (int host = 0; host < l->size; host++) {
        int n = 0;
        for (int r = 0; r < l->size; r++)
            if (l->hosts == 1 ? host == 0 : l->leader[r] == host)
                mine[n++] = sampled(r, i, type);
        if (n > 0)
            sums[hosts++] = total(mine, n, type);
    }
    return total(sums, hosts, type);
}

static void put(void *to, size_t i, number x, comm_dtype type)
{
    memcpy((char *)to + i * comm_dtype_bytes(type), &x, comm_dtype_bytes(type));
}

/* Empty, fewer elements than ranks, both sides of a small sum's limit, slices of unequal length. */
static const size_t counts[] = {0, 1, 3, 4096, 4099, 8192, 8193, 16384, 16385, 20011};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static void parts_are_added_in_order(void **state)
{
    (void)state;
    const layout all = {.size = 5, .hosts = 1};
    for (comm_dtype type = COMM_F32; type <= COMM_BF16; type++) {
        char memory[5][9001 * 8];
        const void *part[5];
        for (int r = 0; r < 5; r++) {
            part[r] = memory[r];
            for (size_t i = 0; i < 9001; i++)
                put(memory[r], i, sampled(r, i, type), type);
        }
        add_in_order(memory[0], part, 5, 9001, type);
        for (size_t i = 0; i < 9001; i++) {
            const number expected = expected_sum(&all, i, type);
            assert_memory_equal(memory[0] + i * comm_dtype_bytes(type), &expected, comm_dtype_bytes(type));
        }
    }
}

/* ---- the ranks ---- */

static void *values_of(int rank, size_t count, comm_dtype type)
{
    char *values = malloc(count * comm_dtype_bytes(type) + 1);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        put(values, i, sampled(rank, i, type), type);
    return values;
}

static void check_sums(const layout *l, const void *got, size_t count, comm_dtype type)
{
    for (size_t i = 0; i < count; i++) {
        const number expected = expected_sum(l, i, type);
        if (memcmp((const char *)got + i * comm_dtype_bytes(type), &expected, comm_dtype_bytes(type)) != 0)
            fail_msg("element %zu of %zu of type %d on leaders %d %d %d %d", i, count, (int)type, l->leader[0],
                     l->leader[1], l->leader[2], l->leader[3]);
    }
}

/* All under way at once. */
static void sum_so(comm *c, const layout *l)
{
    for (comm_dtype type = COMM_F32; type <= COMM_BF16; type++) {
        comm_request request[N_COUNTS] = {0};
        void *values[N_COUNTS];
        for (int i = 0; i < N_COUNTS; i++) {
            values[i] = values_of(comm_describe(c)->rank, counts[i], type);
            assert_int_equal(comm_all_reduce_start(c, values[i], counts[i], type, &request[i]), 0);
            assert_int_equal(comm_progress(c), 0);
        }
        for (int k = 0; k < N_COUNTS; k++) {
            int i = (7 * k + 3) % N_COUNTS;
            assert_int_equal(comm_wait(c, &request[i]), 0);
            check_sums(l, values[i], counts[i], type);
            free(values[i]);
        }
    }
}

static void regroup(comm_mpi *m, const int *leader)
{
    comm_mpi_ungroup(m);
    for (int r = 0; r < m->base.info.size; r++)
        m->place[r].host_leader = leader[r];
    assert_int_equal(comm_mpi_group(m), 0);
}

static void sums_have_the_bits_of_their_order(void **state)
{
    comm *c = NULL;
    (void)state;
    assert_int_equal(comm_open(&c, NULL), 0);
    const int size = comm_describe(c)->size;
    for (const layout *l = layouts; l < layouts + LAYOUTS; l++) {
        if (l->size != size)
            continue;
        if (size > 1)
            regroup((comm_mpi *)c, l->leader);
        sum_so(c, l);
    }
    comm_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_the_hosts),
        cmocka_unit_test(slices_lie_end_to_end),
        cmocka_unit_test(parts_are_added_in_order),
        cmocka_unit_test(sums_have_the_bits_of_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

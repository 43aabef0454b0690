/* The collectives, for any number of ranks: without a launcher this is the communicator of one rank. Sums are compared
 * bit for bit with the values added in rank order. */
#include "base/error.h"
#include "base/sixteen_bit.h"
#include "dist/comm.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Empty, fewer elements than ranks, both sides of the small sum's limit in every type, shares of unequal length. */
static const size_t counts[] = {0, 1, 3, 4096, 4097, 8192, 8193, 16384, 16385, 100003};
enum { N_COUNTS = sizeof counts / sizeof *counts };

/* Any value whose sum depends on the order of addition. */
static double sample(int rank, size_t i)
{
    uint64_t h = (i + 1) * 0x9E3779B97F4A7C15u + (uint64_t)(rank + 1) * 0xD1B54A32D192ED03u;
    h = (h ^ (h >> 31)) * 0xBF58476D1CE4E5B9u;
    double scale = rank % 2 ? 1e6 : 1.0;
    return scale * ((double)(h >> 11) * 0x1p-53 - 0.5);
}

static size_t element_bytes(comm_dtype type)
{
    return type == COMM_F32 ? 4 : 8;
}

static void *rank_values(int rank, size_t count, comm_dtype type)
{
    char *values = malloc(count * element_bytes(type) + 1);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        if (type == COMM_F32)
            ((float *)values)[i] = (float)sample(rank, i);
        else if (type == COMM_F64)
            ((double *)values)[i] = sample(rank, i);
        else
            ((int64_t *)values)[i] = (int64_t)(sample(rank, i) * 1e9);
    }
    return values;
}

static void *sum_in_rank_order(int size, size_t count, comm_dtype type)
{
    void *sum = rank_values(0, count, type);
    for (int r = 1; r < size; r++) {
        void *values = rank_values(r, count, type);
        for (size_t i = 0; i < count; i++) {
            if (type == COMM_F32)
                ((float *)sum)[i] += ((float *)values)[i];
            else if (type == COMM_F64)
                ((double *)sum)[i] += ((double *)values)[i];
            else
                ((int64_t *)sum)[i] += ((int64_t *)values)[i];
        }
        free(values);
    }
    return sum;
}

static void check_sum(const comm *c, const void *got, size_t count, comm_dtype type)
{
    void *expected = sum_in_rank_order(comm_describe(c)->size, count, type);
    assert_memory_equal(got, expected, count * element_bytes(type));
    free(expected);
}

static void test_description(void **state)
{
    const comm_info *info = comm_describe(*state);
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    assert_int_equal(info->size, ranks ? atoi(ranks) : 1);
    assert_in_range(info->rank, 0, info->size - 1);
    assert_int_equal(info->local_size, info->size);
    assert_int_equal(info->local_rank, info->rank);
    assert_true(strlen(info->host) > 0);
    if (ranks)
        assert_non_null(strstr(info->library, "MPI"));
    else
        assert_string_equal(info->library, "single process");
}

static void test_all_reduce(void **state)
{
    comm *c = *state;
    for (comm_dtype type = COMM_F32; type <= COMM_I64; type++)
        for (int i = 0; i < N_COUNTS; i++) {
            void *values = rank_values(comm_describe(c)->rank, counts[i], type);
            assert_int_equal(comm_all_reduce(c, values, counts[i], type), 0);
            check_sum(c, values, counts[i], type);
            free(values);
        }
}

static uint16_t narrow(float x, comm_dtype type)
{
    return type == COMM_F16 ? float16_from(x) : bfloat16_from(x);
}

static float widen(uint16_t bits, comm_dtype type)
{
    return type == COMM_F16 ? float16_value(bits) : bfloat16_value(bits);
}

/* Added in float32 in rank order, rounded once. */
static void check_sixteen_bit_sum(comm *c, size_t count, comm_dtype type)
{
    const comm_info *info = comm_describe(c);
    uint16_t *values = malloc(count * sizeof *values + 1);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = narrow((float)(1e-4 * sample(info->rank, i)), type);
    assert_int_equal(comm_all_reduce(c, values, count, type), 0);
    for (size_t i = 0; i < count; i++) {
        float sum = widen(narrow((float)(1e-4 * sample(0, i)), type), type);
        for (int rank = 1; rank < info->size; rank++)
            sum += widen(narrow((float)(1e-4 * sample(rank, i)), type), type);
        assert_int_equal(values[i], narrow(sum, type));
    }
    free(values);
}

static void test_sixteen_bit_sums(void **state)
{
    for (int i = 0; i < N_COUNTS; i++) {
        check_sixteen_bit_sum(*state, counts[i], COMM_F16);
        check_sixteen_bit_sum(*state, counts[i], COMM_BF16);
    }
}

/* Sums of all sizes under way at once, with another collective in between; twice, so that records are reused. They are
 * waited for in another order than they were started in. */
static void test_started_sums(void **state)
{
    comm *c = *state;
    int rank = comm_describe(c)->rank;
    for (int round = 0; round < 2; round++) {
        comm_request request[N_COUNTS] = {0};
        void *values[N_COUNTS];
        for (int i = 0; i < N_COUNTS; i++) {
            int which = round ? N_COUNTS - 1 - i : i;
            values[i] = rank_values(rank, counts[which], COMM_F32);
            assert_int_equal(comm_all_reduce_start(c, values[i], counts[which], COMM_F32, &request[i]), 0);
            assert_int_equal(comm_progress(c), 0);
        }
        int word = rank == 0 ? 42 : 0;
        assert_int_equal(comm_broadcast(c, &word, sizeof word, 0), 0);
        assert_int_equal(word, 42);
        for (int k = 0; k < N_COUNTS; k++) {
            int i = (round ? 7 * k + 2 : 3 * k + 5) % N_COUNTS;
            assert_int_equal(comm_wait(c, &request[i]), 0);
            check_sum(c, values[i], counts[round ? N_COUNTS - 1 - i : i], COMM_F32);
            free(values[i]);
        }
    }
}

static void test_misused_request(void **state)
{
    comm *c = *state;
    comm_request request = {0};
    double value = comm_describe(c)->rank + 1.0;
    assert_int_equal(comm_wait(c, &request), ERROR_INTERNAL);
    assert_int_equal(comm_all_reduce_start(c, &value, 1, COMM_F64, &request), 0);
    assert_int_equal(comm_all_reduce_start(c, &value, 1, COMM_F64, &request), ERROR_INTERNAL);
    assert_int_equal(comm_wait(c, &request), 0);
    assert_int_equal(comm_wait(c, &request), ERROR_INTERNAL);
    if (comm_describe(c)->size > 1)
        assert_int_equal(comm_all_reduce(c, &value, (size_t)INT_MAX, COMM_F64), ERROR_SHAPE);
}

static void test_broadcast(void **state)
{
    comm *c = *state;
    const comm_info *info = comm_describe(c);
    for (int root = 0; root < info->size; root++) {
        unsigned char bytes[70000];
        memset(bytes, info->rank, sizeof bytes);
        assert_int_equal(comm_broadcast(c, bytes, sizeof bytes, root), 0);
        for (size_t i = 0; i < sizeof bytes; i++)
            assert_int_equal(bytes[i], root);
        assert_int_equal(comm_broadcast(c, NULL, 0, root), 0);
    }
    assert_int_equal(comm_broadcast(c, NULL, 0, info->size), ERROR_INTERNAL);
    assert_int_equal(comm_barrier(c), 0);
}

static void test_all_gather(void **state)
{
    comm *c = *state;
    const comm_info *info = comm_describe(c);
    int64_t mine[3] = {info->rank, info->rank * 10 + 7, -info->rank};
    int64_t(*all)[3] = malloc((size_t)info->size * sizeof *all);
    assert_non_null(all);
    assert_int_equal(comm_all_gather(c, mine, sizeof mine, all), 0);
    for (int r = 0; r < info->size; r++) {
        assert_int_equal(all[r][0], r);
        assert_int_equal(all[r][1], r * 10 + 7);
        assert_int_equal(all[r][2], -r);
    }
    free(all);
}

/* What the ranks from `first` on get wrong is reported as the first one's by all. */
static void check_agreed_failure(comm *c, int first, int (*agree)(comm *c, int status))
{
    const comm_info *info = comm_describe(c);
    int status = info->rank >= first ? error_set(ERROR_FILE - info->rank, "no file number %d", info->rank) : 0;
    char expected[512];
    snprintf(expected, sizeof expected, "rank %d on %s: no file number %d", first, info->host, first);
    assert_int_equal(agree(c, status), ERROR_FILE - first);
    assert_string_equal(error_message(), info->size > 1 ? expected : "no file number 0");
    assert_int_equal(comm_peer_failed(c), info->rank != first);
}

static int agree_twice(comm *c, int status)
{
    return comm_agree(c, comm_agree(c, status));
}

/* Even and odd ranks, and a group without rank 0; then all again, to see that a part leaves nothing behind. */
static void test_split(void **state)
{
    comm *c = *state, *part, *rest;
    const comm_info *info = comm_describe(c);
    const int parity = info->rank % 2;
    assert_int_equal(comm_split(c, parity, &part), 0);
    assert_int_equal(comm_describe(part)->rank, info->rank / 2);
    assert_int_equal(comm_describe(part)->size, (info->size + 1 - parity) / 2);
    int64_t sum = info->rank, wanted = 0;
    for (int rank = parity; rank < info->size; rank += 2)
        wanted += rank;
    assert_int_equal(comm_all_reduce(part, &sum, 1, COMM_I64), 0);
    assert_int_equal(sum, wanted);
    comm_close(part);
    assert_int_equal(comm_split(c, info->rank == 0 ? -1 : 5, &rest), 0);
    assert_int_equal(rest == NULL, info->rank == 0);
    int root = info->rank;
    if (rest)
        assert_int_equal(comm_broadcast(rest, &root, sizeof root, 0), 0);
    assert_int_equal(root, info->rank == 0 ? 0 : 1);
    comm_close(rest);
    sum = 1;
    assert_int_equal(comm_all_reduce(c, &sum, 1, COMM_I64), 0);
    assert_int_equal(sum, info->size);
}

static void test_agree(void **state)
{
    comm *c = *state;
    const comm_info *info = comm_describe(c);
    assert_int_equal(comm_agree(c, 0), 0);
    check_agreed_failure(c, info->size - 1, comm_agree);
    check_agreed_failure(c, 0, comm_agree);
    check_agreed_failure(c, info->size / 2, agree_twice);

    error_set(ERROR_DATA, "this rank's own");
    assert_false(comm_peer_failed(c));
    assert_int_equal(comm_agree(c, 0), 0);
    assert_int_equal(comm_barrier(c), 0);
}

static int open_comm(void **state)
{
    comm *c = NULL;
    if (comm_open(&c, NULL) < 0) {
        fprintf(stderr, "%s\n", error_message());
        return -1;
    }
    *state = c;
    return 0;
}

static int close_comm(void **state)
{
    comm_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_all_reduce),
        cmocka_unit_test(test_sixteen_bit_sums),
        cmocka_unit_test(test_started_sums),
        cmocka_unit_test(test_misused_request),
        cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_agree),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, open_comm, close_comm);
}

/* Sums between GPUs on the emulated device, for any number of ranks: what is summed, in what order with the launches,
 * and what happens when NCCL or the GPU fails. The device does its work as late as it may, so that a missing wait
 * shows.
 */
#include "base/error.h"
#include "base/sixteen_bit.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* Empty, one, odd, one piece of the fake library's shared memory and more. */
static const size_t counts[] = {0, 1, 3, 1025, 65536, 100003};
enum { N_COUNTS = sizeof counts / sizeof *counts, TYPES = COMM_BF16 + 1 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* What NCCL was last asked for: 'd' destroy, 'a' abort. */
static int how_it_ended(void)
{
    char history[HISTORY_BYTES];
    look_at_history(history);
    size_t n = strlen(history);
    return n > 0 ? history[n - 1] : 0;
}

static void close_sums(reduction *sums, int expected_end)
{
    sums->ops->close(sums);
    assert_int_equal(how_it_ended(), expected_end);
    cudaGetLastError();
}

/* ---- values ---- */

static void set_element(void *array, size_t i, double value, comm_dtype type)
{
    switch (type) {
    case COMM_F32:
        ((float *)array)[i] = (float)value;
        break;
    case COMM_F64:
        ((double *)array)[i] = value;
        break;
    case COMM_I64:
        ((int64_t *)array)[i] = (int64_t)value * (((int64_t)1 << 55) + 1); /* no double holds it */
        break;
    default:
        ((uint16_t *)array)[i] = type == COMM_F16 ? float16_from((float)value) : bfloat16_from((float)value);
    }
}

/* Small whole numbers, so that every sum is exact in every type. */
static double sample(int rank, size_t i, int which)
{
    return (double)(rank + 1) * (double)((i + (size_t)which) % 7 + 1);
}

typedef struct {
    size_t count, bytes;
    comm_dtype type;
    int which;
    void *start, *result; /* on the host */
    void *device;
} vector;

static vector new_vector(size_t count, comm_dtype type, int which)
{
    vector v = {.count = count, .bytes = count * comm_dtype_bytes(type), .type = type, .which = which};
    v.start = calloc(1, v.bytes + 8);
    v.result = calloc(1, v.bytes + 8);
    assert_non_null(v.start);
    assert_non_null(v.result);
    for (size_t i = 0; i < count; i++)
        set_element(v.start, i, sample(comm_describe(ranks)->rank, i, which), type);
    assert_int_equal(cudaMalloc(&v.device, v.bytes + 8), cudaSuccess);
    return v;
}

static void free_vector(vector *v)
{
    cudaFree(v->device);
    free(v->start);
    free(v->result);
}

static void launch_fill(const vector *v)
{
    assert_int_equal(cudaMemcpyAsync(v->device, v->start, v->bytes, cudaMemcpyHostToDevice, compute), cudaSuccess);
}

static void launch_read(const vector *v)
{
    assert_int_equal(cudaMemcpyAsync(v->result, v->device, v->bytes, cudaMemcpyDeviceToHost, compute), cudaSuccess);
}

static void check_sum(const vector *v)
{
    void *expected = calloc(1, v->bytes + 8);
    assert_non_null(expected);
    for (size_t i = 0; i < v->count; i++) {
        double total = 0;
        for (int rank = 0; rank < rank_count(); rank++)
            total += sample(rank, i, v->which);
        set_element(expected, i, total, v->type);
    }
    assert_memory_equal(v->result, expected, v->bytes);
    free(expected);
}

static void start(reduction *sums, const vector *v)
{
    ok(sums->ops->start(sums, v->device, v->count, v->type));
}

/* ---- sums ---- */

static void every_type_and_size(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    assert_true(sums->ops->capturable);
    assert_memory_equal(sums->ops->name, "NCCL 2.", 7);
    for (int type = 0; type < TYPES; type++)
        for (int i = 0; i < N_COUNTS; i++) {
            vector v = new_vector(counts[i], (comm_dtype)type, i);
            launch_fill(&v);
            start(sums, &v);
            ok(sums->ops->progress(sums));
            ok(sums->ops->finish(sums));
            launch_read(&v);
            ok(sums->ops->synchronize(sums));
            check_sum(&v);
            free_vector(&v);
        }
    close_sums(sums, 'd');
}

/* Sums of different sizes and types between launches, twice, and one wait for all of them. */
static void many_started(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    vector v[2 * N_COUNTS];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2 * N_COUNTS; i++) {
            v[i] = new_vector(counts[round ? i / 2 : N_COUNTS - 1 - i / 2], (comm_dtype)(i % TYPES), i + round);
            launch_fill(&v[i]);
            start(sums, &v[i]);
        }
        ok(sums->ops->finish(sums));
        ok(sums->ops->finish(sums));
        for (int i = 0; i < 2 * N_COUNTS; i++)
            launch_read(&v[i]);
        ok(sums->ops->synchronize(sums));
        assert_int_equal(emulated_pending(), 0);
        for (int i = 0; i < 2 * N_COUNTS; i++) {
            check_sum(&v[i]);
            free_vector(&v[i]);
        }
    }
    close_sums(sums, 'd');
}

/* Nothing waits for the GPU or for the peers until it must. */
static void only_enqueued(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    vector v = new_vector(1025, COMM_F32, 1);
    launch_fill(&v);
    start(sums, &v);
    ok(sums->ops->finish(sums));
    launch_read(&v);
    assert_true(emulated_pending() >= 4);
    ok(sums->ops->synchronize(sums));
    check_sum(&v);
    close_sums(sums, 'd');
    free_vector(&v);
}

/* A wait is for the sums, too, also for those that no launch waits for yet. */
static void waited_for_unfinished(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    vector v = new_vector(100003, COMM_F64, 1);
    launch_fill(&v);
    start(sums, &v);
    ok(sums->ops->synchronize(sums));
    launch_read(&v);
    assert_int_equal(cudaStreamSynchronize(compute), cudaSuccess);
    check_sum(&v);
    ok(sums->ops->finish(sums));
    ok(sums->ops->synchronize(sums));
    close_sums(sums, 'd');
    free_vector(&v);
}

/* A capture without sums, after sums: it may not wait for what was done before it. */
static void captured_without_sums(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    vector v = new_vector(3, COMM_F32, 0);
    cudaGraph_t graph = NULL;
    launch_fill(&v);
    start(sums, &v);
    ok(sums->ops->finish(sums));
    assert_int_equal(cudaStreamBeginCapture(compute, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ok(sums->ops->finish(sums));
    launch_read(&v);
    assert_int_equal(cudaStreamEndCapture(compute, &graph), cudaSuccess);
    cudaGraphDestroy(graph);
    ok(sums->ops->synchronize(sums));
    close_sums(sums, 'd');
    free_vector(&v);
}

static void captured(void **state)
{
    (void)state;
    enum { SUMS = 3, RUNS = 3 };
    reduction *sums = open_sums("", 60);
    vector v[SUMS];
    cudaGraph_t graph = NULL;
    cudaGraphExec_t replay = NULL;
    for (int i = 0; i < SUMS; i++)
        v[i] = new_vector(i == 1 ? 100003 : 3, COMM_F32, i);
    for (int eager = 0; eager < 2; eager++) { /* before the capture, and in it */
        if (eager == 1)
            assert_int_equal(cudaStreamBeginCapture(compute, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        for (int i = 0; i < SUMS; i++) {
            launch_fill(&v[i]);
            start(sums, &v[i]);
            ok(sums->ops->progress(sums));
            if (i > 0)
                ok(sums->ops->finish(sums));
        }
        ok(sums->ops->finish(sums));
        for (int i = 0; i < SUMS; i++)
            launch_read(&v[i]);
    }
    assert_int_equal(cudaStreamEndCapture(compute, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&replay, graph, cudaGraphInstantiateFlagUseNodePriority), cudaSuccess);
    cudaGraphDestroy(graph);
    for (int run = 0; run < RUNS; run++) {
        ok(sums->ops->synchronize(sums));
        for (int i = 0; i < SUMS; i++) {
            if (run > 0)
                check_sum(&v[i]);
            memset(v[i].result, 0xAA, v[i].bytes);
        }
        assert_int_equal(cudaGraphLaunch(replay, compute), cudaSuccess);
        ok(sums->ops->progress(sums));
    }
    ok(sums->ops->synchronize(sums));
    cudaGraphExecDestroy(replay);
    close_sums(sums, 'd');
    for (int i = 0; i < SUMS; i++)
        free_vector(&v[i]);
}

static void environment(void **state)
{
    (void)state;
    reduction *sums = NULL;
    const nccl_options deterministic = {.deadline_seconds = 60, .deterministic = true};
    sums = open_sums("", 60);
    close_sums(sums, 'd');
    assert_null(getenv("NCCL_ALGO"));
    setenv("NCCL_PROTO", "LL128", 1);
    ok(nccl_reduction_open(&sums, libraries, ranks, compute, &deterministic));
    close_sums(sums, 'd');
    assert_string_equal(getenv("NCCL_ALGO"), "Ring");
    assert_string_equal(getenv("NCCL_PROTO"), "LL128");
}

static void distinct_gpus(void **state)
{
    (void)state;
    char id[32];
    gpu_sharing found = {.ranks = 7};
    snprintf(id, sizeof id, "0000:%02x:00.0", comm_describe(ranks)->rank);
    ok(nccl_find_sharing(ranks, id, &found));
    assert_int_equal(found.ranks, 0);
    ok(nccl_find_sharing(ranks, comm_describe(ranks)->rank < 2 ? "0000:1b:00.0" : "0000:9c:00.0", &found));
    assert_int_equal(found.ranks, rank_count() == 1 ? 0 : rank_count());
    if (rank_count() > 1) {
        assert_int_equal(found.gpus, rank_count() - 1);
        assert_string_equal(found.host, comm_describe(ranks)->host);
    }
}

/* ---- failures ---- */

static void all_ranks_say_the_same(void)
{
    char mine[2048], first[2048];
    snprintf(mine, sizeof mine, "%s", error_message());
    memcpy(first, mine, sizeof first);
    ok(comm_broadcast(ranks, first, sizeof first, 0));
    assert_string_equal(mine, first);
}

static void opening_fails(const char *behaviour, double deadline, const char *const *words)
{
    double begin = now();
    reduction *sums = NULL;
    int code = try_open(&sums, behaviour, deadline);
    double seconds = now() - begin;
    says(code, ERROR_COMM, words);
    assert_null(sums);
    assert_int_equal(how_it_ended(), 'a');
    if (seconds > 10)
        fail_msg("failed after %g s", seconds);
    all_ranks_say_the_same();
}

static void opening_never_ends(void **state)
{
    (void)state;
    opening_fails("init_hangs", 0.3,
                  (const char *[]){rank_count() > 1 ? "rank " : "", "NCCL 2.", "has not connected", "within 0.3 s",
                                   "firewall", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG=INFO", NULL});
}

/* The others would wait for it: they hear of it instead. */
static void opening_fails_on_one_rank(void **state)
{
    (void)state;
    char who[32] = "";
    if (rank_count() > 1)
        snprintf(who, sizeof who, "rank %d on ", rank_count() - 1);
    opening_fails("init_fails", 600,
                  (const char *[]){who, "connecting the GPUs: NCCL 2.", "unhandled system error",
                                   "no route to 10.0.0.7", "NCCL_DEBUG=INFO", NULL});
}

static void library_is_missing(void **state)
{
    (void)state;
    bool misses = is_last_rank();
    cuda_libraries *none = NULL;
    const char *folder = getenv("TESKD_CUDA_LIBRARIES");
    char kept[1024];
    reduction *sums = NULL;
    assert_non_null(folder);
    snprintf(kept, sizeof kept, "%s", folder);
    setenv("TESKD_CUDA_LIBRARIES", "/nonexistent", 1);
    ok(cuda_libraries_open(&none));
    setenv("TESKD_CUDA_LIBRARIES", kept, 1);
    int code =
        nccl_reduction_open(&sums, misses ? none : libraries, ranks, compute, &(nccl_options){.deadline_seconds = 60});
    says(code, ERROR_KERNEL, (const char *[]){"libnccl.so.2", "libnccl2", NULL});
    all_ranks_say_the_same();
    cuda_libraries_close(none);
}

/* Every later call says the same, and closing returns. */
static void stays_failed(reduction *sums, int code, const char *const *words)
{
    char message[2048], byte = 0;
    says(code, ERROR_COMM, words);
    snprintf(message, sizeof message, "%s", error_message());
    error_set(0, "something else");
    says(sums->ops->progress(sums), ERROR_COMM, (const char *[]){message, NULL});
    says(sums->ops->start(sums, &byte, 1, COMM_F32), ERROR_COMM, (const char *[]){message, NULL});
    says(sums->ops->finish(sums), ERROR_COMM, (const char *[]){message, NULL});
    says(sums->ops->synchronize(sums), ERROR_COMM, (const char *[]){message, NULL});
    error_set(0, "to be reported");
    close_sums(sums, 'a');
    assert_string_equal(error_message(), "to be reported");
}

static void launching_never_ends(void **state)
{
    (void)state;
    reduction *sums = open_sums("launch_hangs", 0.3);
    vector v = new_vector(3, COMM_F32, 0);
    launch_fill(&v);
    int code = sums->ops->start(sums, v.device, v.count, v.type);
    stays_failed(sums, code, (const char *[]){"starting an all-reduce", "0.3 s", "NCCL_DEBUG=INFO", NULL});
    free_vector(&v);
}

static void a_sum_never_ends(void **state)
{
    (void)state;
    reduction *sums = open_sums("sum_hangs", 0.3);
    vector v = new_vector(3, COMM_F32, 0);
    launch_fill(&v);
    start(sums, &v);
    ok(sums->ops->finish(sums));
    int code = sums->ops->synchronize(sums);
    stays_failed(sums, code, (const char *[]){"reductions were not done within 0.3 s", "every rank is alive", NULL});
    free_vector(&v);
}

static void an_error_while_summing(void **state)
{
    (void)state;
    reduction *sums = open_sums("link_lost", 60);
    vector v[2] = {new_vector(3, COMM_F32, 0), new_vector(3, COMM_F64, 1)};
    launch_fill(&v[0]);
    start(sums, &v[0]);
    ok(sums->ops->finish(sums));
    launch_read(&v[0]);
    ok(sums->ops->synchronize(sums));
    check_sum(&v[0]);
    launch_fill(&v[1]);
    start(sums, &v[1]);
    ok(sums->ops->finish(sums));
    stays_failed(sums, sums->ops->synchronize(sums),
                 (const char *[]){"reductions: NCCL 2.", "network error: the link to 10.0.0.7 is down", NULL});
    for (int i = 0; i < 2; i++)
        free_vector(&v[i]);
}

/* Ranks that do not start the same sums hear of it, instead of wrong numbers. */
static void different_sums(void **state)
{
    (void)state;
    if (rank_count() == 1)
        return;
    reduction *sums = open_sums("", 60);
    vector v = new_vector(3, comm_describe(ranks)->rank == 0 ? COMM_F32 : COMM_F64, 0);
    launch_fill(&v);
    start(sums, &v);
    ok(sums->ops->finish(sums));
    stays_failed(sums, sums->ops->synchronize(sums), (const char *[]){"the ranks have started different sums", NULL});
    free_vector(&v);
}

static void an_end_with_sums_under_way(void **state)
{
    (void)state;
    reduction *sums = open_sums("sum_hangs", 60);
    vector v = new_vector(3, COMM_F32, 0);
    launch_fill(&v);
    start(sums, &v);
    double begin = now();
    close_sums(sums, 'a');
    assert_true(now() - begin < 5);
    free_vector(&v);
}

static void an_end_that_hangs(void **state)
{
    (void)state;
    double begin = now();
    reduction *sums = open_sums("finalize_hangs", 600);
    error_set(0, "to be reported");
    close_sums(sums, 'a');
    assert_string_equal(error_message(), "to be reported");
    assert_true(now() - begin < 15);
}

/* The process has to know, so that it ends without exit handlers. The last test of the communicator. */
static void a_destruction_that_hangs(void **state)
{
    (void)state;
    double begin = now();
    reduction *sums = open_sums("destroy_hangs", 600);
    assert_false(comm_has_left_thread(ranks));
    close_sums(sums, 'f');
    assert_true(comm_has_left_thread(ranks));
    assert_true(now() - begin < 15);
}

static int sum_in(reduction *sums, void *data, size_t count)
{
    TRY(sums->ops->start(sums, data, count, COMM_F32));
    TRY(sums->ops->finish(sums));
    return sums->ops->synchronize(sums);
}

/* All that one rank does, with each call of the runtime failing once. Memory of NCCL's is refused then. */
static int sum_once(vector *v)
{
    reduction *sums = NULL;
    void *memory = NULL;
    TRY(try_open(&sums, "", 60));
    int code = sums->ops->alloc(sums, v->bytes, &memory);
    if (code == 0)
        code = sum_in(sums, memory ? memory : v->device, v->count);
    if (memory)
        sums->ops->free(sums, memory);
    sums->ops->close(sums);
    return code;
}

static void calls_of_the_runtime_fail(void **state)
{
    (void)state;
    if (rank_count() > 1)
        return;
    vector v = new_vector(3, COMM_F32, 0);
    int failures = 0;
    bool pending = false;
    for (int nth = 1; !pending; nth++) {
        emulated_fail(nth, cudaErrorLaunchFailure);
        int code = sum_once(&v);
        pending = emulated_failure_pending();
        emulated_fail(0, cudaSuccess);
        failures += code < 0;
        if (code < 0) {
            assert_int_equal(code, ERROR_KERNEL);
            assert_int_equal(how_it_ended() == 'd', 0);
        }
        if (pending)
            assert_int_equal(code, 0);
    }
    assert_true(failures >= 10);
    free_vector(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_size),
        cmocka_unit_test(many_started),
        cmocka_unit_test(only_enqueued),
        cmocka_unit_test(waited_for_unfinished),
        cmocka_unit_test(captured_without_sums),
        cmocka_unit_test(captured),
        cmocka_unit_test(environment),
        cmocka_unit_test(distinct_gpus),
        cmocka_unit_test(opening_never_ends),
        cmocka_unit_test(opening_fails_on_one_rank),
        cmocka_unit_test(library_is_missing),
        cmocka_unit_test(launching_never_ends),
        cmocka_unit_test(a_sum_never_ends),
        cmocka_unit_test(an_error_while_summing),
        cmocka_unit_test(different_sums),
        cmocka_unit_test(an_end_with_sums_under_way),
        cmocka_unit_test(an_end_that_hangs),
        cmocka_unit_test(calls_of_the_runtime_fail),
        cmocka_unit_test(a_destruction_that_hangs),
    };
    return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}

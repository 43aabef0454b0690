/* Memory of NCCL's own, registered as a window: where ranks get it, that all do or none, what is asked of NCCL in which
 * order, and that sums go on where it is refused. For any number of ranks, on the emulated device. */
#include "base/error.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 5000, OFFSET = 1024 };

/* Small whole numbers: every sum is exact. */
static float sample(int rank, size_t i)
{
    return (float)((rank + 1) * (int)(i % 7 + 1));
}

static void launch_fill(float *device)
{
    float values[N];
    for (size_t i = 0; i < N; i++)
        values[i] = sample(comm_describe(ranks)->rank, i);
    assert_int_equal(cudaMemcpyAsync(device, values, sizeof values, cudaMemcpyHostToDevice, compute), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(compute), cudaSuccess);
}

static void launch_sums(reduction *sums, float *device)
{
    ok(sums->ops->start(sums, device, OFFSET, COMM_F32));
    ok(sums->ops->start(sums, device + OFFSET, N - OFFSET, COMM_F32));
    ok(sums->ops->finish(sums));
}

static void check_sums(reduction *sums, const float *device)
{
    float values[N];
    assert_int_equal(cudaMemcpyAsync(values, device, sizeof values, cudaMemcpyDeviceToHost, compute), cudaSuccess);
    ok(sums->ops->synchronize(sums));
    for (size_t i = 0; i < N; i++) {
        float total = 0;
        for (int rank = 0; rank < rank_count(); rank++)
            total += sample(rank, i);
        assert_true(values[i] == total);
    }
}

static void sum_in(reduction *sums, float *device)
{
    launch_fill(device);
    launch_sums(sums, device);
    check_sums(sums, device);
}

static void sum_in_plain_memory(reduction *sums)
{
    void *memory = NULL;
    assert_int_equal(cudaMalloc(&memory, N * sizeof(float)), cudaSuccess);
    sum_in(sums, memory);
    assert_int_equal(cudaFree(memory), cudaSuccess);
}

static void *alloc(reduction *sums)
{
    void *memory = &ranks; /* to be overwritten */
    error_set(0, "%s", "");
    ok(sums->ops->alloc(sums, N * sizeof(float), &memory));
    assert_string_equal(error_message(), "");
    return memory;
}

static void *alloc_some(reduction *sums)
{
    void *memory = alloc(sums);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    assert_history("AR");
    return memory;
}

/* ---- given ---- */

static void sums_in_it(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    void *memory = alloc_some(sums);
    sum_in(sums, memory);
    sum_in_plain_memory(sums);
    sum_in(sums, memory);
    sums->ops->free(sums, memory);
    assert_history("DF");
    assert_int_equal(emulated_used(), 0);
    sum_in_plain_memory(sums);
    sums->ops->close(sums);
    assert_history("fd");
}

/* The window must not go while a sum is in it. */
static void freeing_waits(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    void *memory = alloc_some(sums);
    launch_fill(memory);
    launch_sums(sums, memory);
    assert_true(emulated_pending() > 0);
    error_set(0, "to be reported");
    sums->ops->free(sums, memory);
    assert_string_equal(error_message(), "to be reported");
    assert_int_equal(emulated_pending(), 0);
    assert_history("DF");
    sums->ops->close(sums);
    assert_history("fd");
}

static void one_piece_at_a_time(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    void *memory = alloc_some(sums);
    assert_null(alloc(sums));
    assert_history("");
    sums->ops->free(sums, memory);
    assert_history("DF");
    memory = alloc_some(sums);
    sum_in(sums, memory);
    sums->ops->free(sums, memory);
    sums->ops->close(sums);
    assert_history("DFfd");
}

static void closing_frees_it(void **state)
{
    (void)state;
    reduction *sums = open_sums("", 60);
    sum_in(sums, alloc_some(sums));
    sums->ops->close(sums);
    assert_history("fdF");
    assert_int_equal(emulated_used(), 0);
}

/* ---- refused ---- */

/* `last`, `others`: what NCCL is asked for on the last rank, and on the others. */
static void refuses(const char *behaviour, double deadline, const char *last, const char *others)
{
    reduction *sums = open_sums(behaviour, deadline);
    assert_null(alloc(sums));
    assert_history(is_last_rank() ? last : others);
    assert_int_equal(emulated_used(), 0);
    ok(sums->ops->progress(sums));
    sum_in_plain_memory(sums);
    sums->ops->close(sums);
    assert_history("fd");
}

static void one_rank_lacks_memory(void **state)
{
    (void)state;
    refuses("no_memory", 60, "", "AF");
}

static void gpus_without_windows(void **state)
{
    (void)state;
    refuses("no_windows", 60, "AF", "AF");
}

static void one_rank_gets_no_window(void **state)
{
    (void)state;
    refuses("one_without_window", 60, "AF", "ARDF");
}

/* An error has made NCCL's communicator useless: there is a new one. */
static void registering_fails_on_one_rank(void **state)
{
    (void)state;
    refuses("register_fails", 60, "AaF", "AaF");
}

static void registering_never_ends(void **state)
{
    (void)state;
    refuses("register_hangs", 3, "AaF", "AaF");
}

static void fixed_order(void **state)
{
    (void)state;
    reduction *sums = NULL;
    const nccl_options options = {.deadline_seconds = 60, .deterministic = true};
    setenv("FAKE_NCCL", "", 1);
    ok(nccl_reduction_open(&sums, libraries, ranks, compute, &options));
    assert_null(alloc(sums));
    assert_history("");
    sum_in_plain_memory(sums);
    sums->ops->close(sums);
    assert_history("fd");
}

static void older_nccl(void **state)
{
    (void)state;
    cuda_libraries *newer = libraries;
    char folder[1024];
    strncpy(folder, getenv("TESKD_CUDA_LIBRARIES"), sizeof folder - 1);
    folder[sizeof folder - 1] = '\0';
    setenv("TESKD_CUDA_LIBRARIES", OLD_NCCL, 1);
    ok(cuda_libraries_open(&libraries));
    setenv("TESKD_CUDA_LIBRARIES", folder, 1);
    ok(cuda_library_check(libraries, CUDA_NCCL));
    assert_null(libraries->ncclCommWindowRegister);
    reduction *sums = open_sums("", 60);
    assert_string_equal(sums->ops->name, "NCCL 2.26.5");
    assert_null(alloc(sums));
    sum_in_plain_memory(sums);
    sums->ops->close(sums);
    assert_history("fd");
    cuda_libraries_close(libraries);
    libraries = newer;
}

/* One rank alone has the older library, or one that lacks a function: nobody gets memory. */
static void one_rank_has_no_windows(void **state)
{
    (void)state;
    cuda_libraries *whole = libraries, lacking = *libraries;
    lacking.ncclCommWindowDeregister = NULL;
    libraries = is_last_rank() ? &lacking : whole;
    refuses("", 60, "", "AF");
    libraries = whole;
}

/* ---- failures ---- */

/* NCCL may be at work in it until its end. */
static void freed_after_an_abort(void **state)
{
    (void)state;
    reduction *sums = open_sums("sum_hangs", 0.5);
    void *memory = alloc_some(sums);
    launch_fill(memory);
    ok(sums->ops->start(sums, memory, N, COMM_F32));
    says(sums->ops->synchronize(sums), ERROR_COMM, (const char *[]){"reductions were not done", NULL});
    sums->ops->free(sums, memory);
    void *more = NULL;
    says(sums->ops->alloc(sums, N, &more), ERROR_COMM, (const char *[]){"were not done within 0.5 s", NULL});
    assert_null(more);
    sums->ops->close(sums);
    assert_history("aF");
    assert_int_equal(emulated_used(), 0);
}

static void releasing_fails(void **state)
{
    (void)state;
    reduction *sums = open_sums("release_fails", 60);
    void *memory = alloc_some(sums);
    sum_in(sums, memory);
    error_set(0, "to be reported");
    sums->ops->free(sums, memory);
    assert_string_equal(error_message(), "to be reported");
    says(sums->ops->progress(sums), ERROR_COMM,
         (const char *[]){"releasing memory that is reduced", "the memory cannot be unmapped", NULL});
    sums->ops->close(sums);
    assert_history("aF");
    assert_int_equal(emulated_used(), 0);
}

/* NCCL goes on writing to the window that it should register: memory and window stay. The last test. */
static void registering_cannot_be_ended(void **state)
{
    (void)state;
    void *memory = NULL;
    reduction *sums = open_sums("register_fails,abort_hangs", 60);
    says(sums->ops->alloc(sums, N * sizeof(float), &memory), ERROR_COMM,
         (const char *[]){"NCCL 2.", "neither registered memory nor ended", "NCCL_WIN_ENABLE=0", NULL});
    assert_null(memory);
    sums->ops->close(sums);
    assert_history("A");
    left_behind = N * sizeof(float);
    assert_int_equal(emulated_used(), left_behind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_in_it),
        cmocka_unit_test(freeing_waits),
        cmocka_unit_test(one_piece_at_a_time),
        cmocka_unit_test(closing_frees_it),
        cmocka_unit_test(one_rank_lacks_memory),
        cmocka_unit_test(gpus_without_windows),
        cmocka_unit_test(one_rank_gets_no_window),
        cmocka_unit_test(registering_fails_on_one_rank),
        cmocka_unit_test(registering_never_ends),
        cmocka_unit_test(fixed_order),
        cmocka_unit_test(older_nccl),
        cmocka_unit_test(one_rank_has_no_windows),
        cmocka_unit_test(freed_after_an_abort),
        cmocka_unit_test(releasing_fails),
        cmocka_unit_test(registering_cannot_be_ended),
    };
    return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}

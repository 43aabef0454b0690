/* Owns the communicator, the libraries and the stream of a test program. One thread. */
#include "fixture.h"
#include "base/error.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

comm *ranks;
cuda_libraries *libraries;
cudaStream_t compute;
size_t left_behind;

int fixture_open(void **state)
{
    (void)state;
    if (comm_open(&ranks, NULL) < 0 || cuda_libraries_open(&libraries) < 0 ||
        cuda_library_check(libraries, CUDA_NCCL) < 0) {
        fprintf(stderr, "%s\n", error_message());
        return -1;
    }
    emulated_defer(true);
    return cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking) == cudaSuccess ? 0 : -1;
}

int fixture_close(void **state)
{
    (void)state;
    cudaStreamDestroy(compute);
    cuda_libraries_close(libraries);
    comm_close(ranks);
    return emulated_used() == left_behind ? 0 : -1;
}

void ok(int code)
{
    if (code < 0)
        fail_msg("%s", error_message());
}

void says(int code, int expected, const char *const *words)
{
    if (code >= 0)
        fail_msg("no failure");
    assert_int_equal(code, expected);
    for (; *words; words++)
        if (!strstr(error_message(), *words))
            fail_msg("\"%s\" does not say \"%s\"", error_message(), *words);
}

int rank_count(void)
{
    return comm_describe(ranks)->size;
}

bool is_last_rank(void)
{
    return comm_describe(ranks)->rank == rank_count() - 1;
}

int try_open(reduction **out, const char *behaviour, double deadline)
{
    *out = NULL;
    setenv("FAKE_NCCL", behaviour, 1);
    return nccl_reduction_open(out, libraries, ranks, compute, &(nccl_options){.deadline_seconds = deadline});
}

reduction *open_sums(const char *behaviour, double deadline)
{
    reduction *sums;
    ok(try_open(&sums, behaviour, deadline));
    assert_non_null(sums);
    return sums;
}

void look_at_history(char text[HISTORY_BYTES])
{
    void *symbol = dlsym(libraries->handle[CUDA_NCCL], "fake_nccl_history");
    void (*look)(char *) = NULL;
    assert_non_null(symbol);
    memcpy(&look, &symbol, sizeof look);
    look(text);
}

void assert_history(const char *expected)
{
    char text[HISTORY_BYTES];
    look_at_history(text);
    assert_string_equal(text, expected);
}

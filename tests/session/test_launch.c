/* Which launches starve a rank of cores. */
#include "session/launch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void starves(const launch_means *means, const char *words)
{
    char text[LAUNCH_TEXT_BYTES];
    assert_int_equal(launch_starves(means, text), words != NULL);
    if (words)
        assert_non_null(strstr(text, words));
    else
        assert_string_equal(text, "");
}

/* Computing takes a thread per core; the loader's comes on top and is idle most of the time. */
static void computing_on_cores(void **state)
{
    (void)state;
    launch_means m = {.computes_on_cores = true, .threads = 4, .loader_threads = 1, .cores = 4, .hardware_threads = 8};
    starves(&m, NULL);
    m.threads = 5;
    starves(&m, "5 threads compute on 4 cores");
    m.threads = m.cores = 1;
    starves(&m, NULL);
}

static void loading_for_a_gpu(void **state)
{
    (void)state;
    launch_means m = {.decodes = true, .threads = 64, .loader_threads = 7, .cores = 8, .hardware_threads = 8};
    starves(&m, NULL);
    m.loader_threads = 8; /* data.threads */
    starves(&m, "8 cores (8 hardware threads) for 8 loader threads");
    m.decodes = false;
    starves(&m, NULL);
    m = (launch_means){.decodes = true, .loader_threads = 1, .cores = 1, .hardware_threads = 2}; /* mpirun -np 2 */
    starves(&m, "1 core (2 hardware threads) for 1 loader thread and");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(computing_on_cores), cmocka_unit_test(loading_for_a_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

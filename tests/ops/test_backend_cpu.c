/* The CPU backend against the reference, for each instruction set that this processor has and one and two threads,
 * between sentinels. An instruction set that the processor lacks is reported as skipped. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "op_check.h"
#include "skip_check.h"

static bool processor_has(cpu_isa isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == CPU_ISA_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == CPU_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return isa == CPU_ISA_AUTO || isa == CPU_ISA_BASELINE;
}

static void check(cpu_isa isa, int threads)
{
    backend *reference = NULL, *cpu = NULL;
    if (!processor_has(isa)) {
        print_message("this processor lacks the instruction set\n");
        assert_true(backend_cpu_open(&cpu, threads, isa) < 0);
        skip();
    }
    if (backend_reference_open(&reference, 2) < 0 || backend_cpu_open(&cpu, threads, isa) < 0)
        fail_msg("%s", error_message());
    print_message("%s\n", cpu->ops->description(cpu));
    op_check_all(cpu, reference, 1e-5);
    cpu->ops->close(cpu);
    reference->ops->close(reference);
}

static void auto_1_thread(void **state)
{
    (void)state;
    check(CPU_ISA_AUTO, 1);
}

static void auto_2_threads(void **state)
{
    (void)state;
    check(CPU_ISA_AUTO, 2);
}

static void baseline_1_thread(void **state)
{
    (void)state;
    check(CPU_ISA_BASELINE, 1);
}

static void baseline_2_threads(void **state)
{
    (void)state;
    check(CPU_ISA_BASELINE, 2);
}

static void avx2_1_thread(void **state)
{
    (void)state;
    check(CPU_ISA_AVX2, 1);
}

static void avx2_2_threads(void **state)
{
    (void)state;
    check(CPU_ISA_AVX2, 2);
}

static void avx512_1_thread(void **state)
{
    (void)state;
    check(CPU_ISA_AVX512, 1);
}

static void avx512_2_threads(void **state)
{
    (void)state;
    check(CPU_ISA_AVX512, 2);
}

static void skipped_steps_change_nothing(void **state)
{
    (void)state;
    backend *b = NULL;
    assert_int_equal(backend_cpu_open(&b, 2, CPU_ISA_AUTO), 0);
    check_skipped_steps(b);
    check_not_finite(b);
    b->ops->close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_1_thread),
        cmocka_unit_test(auto_2_threads),
        cmocka_unit_test(baseline_1_thread),
        cmocka_unit_test(baseline_2_threads),
        cmocka_unit_test(avx2_1_thread),
        cmocka_unit_test(avx2_2_threads),
        cmocka_unit_test(avx512_1_thread),
        cmocka_unit_test(avx512_2_threads),
        cmocka_unit_test(skipped_steps_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Cores of a machine that hwloc is told about, and /sys as Linux lays it out. */
#include "../base/file_tree.h"
#include "session/cores.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static cpu_set_t range(size_t first, size_t last)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = first; i <= last; i++)
        CPU_SET(i, &set);
    return set;
}

/* Two sockets of four cores with two hardware threads each, numbered one after the other. */
static void threads_of_one_core_are_one_core(void **state)
{
    (void)state;
    const cpu_set_t all = range(0, 15), half_cores = range(1, 4), one = range(6, 7);
    setenv("HWLOC_SYNTHETIC", "package:2 numa:1 core:4 pu:2", 1);
    assert_int_equal(cores_count(&all), 8);
    assert_int_equal(cores_count(&half_cores), 3);
    assert_int_equal(cores_count(&one), 1);
    unsetenv("HWLOC_SYNTHETIC");
}

static void this_machine_has_at_most_a_core_per_thread(void **state)
{
    (void)state;
    cpu_set_t mine;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    const int cores = cores_count(&mine);
    assert_in_range(cores, 1, CPU_COUNT(&mine));
}

static void put_local_cpus(const char *address, const char *mask)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/local_cpus", address);
    file_tree_put(path, mask);
}

static void cores_near_a_device_are_read(void **state)
{
    (void)state;
    cpu_set_t near;
    const cpu_set_t second_half = range(32, 63);
    put_local_cpus("0000:ab:00.0", "ffffffff,00000000\n");
    assert_true(cores_near("0000:AB:00.0", file_tree_root, &near));
    assert_true(CPU_EQUAL(&near, &second_half));
}

static void what_the_system_does_not_tell_is_unknown(void **state)
{
    (void)state;
    cpu_set_t near;
    put_local_cpus("0000:01:00.0", "00000000\n");
    assert_false(cores_near("0000:01:00.0", file_tree_root, &near));
    assert_false(cores_near("0000:02:00.0", file_tree_root, &near));
    assert_false(cores_near("", file_tree_root, &near));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_of_one_core_are_one_core),
        cmocka_unit_test(this_machine_has_at_most_a_core_per_thread),
        cmocka_unit_test(cores_near_a_device_are_read),
        cmocka_unit_test(what_the_system_does_not_tell_is_unknown),
    };
    return cmocka_run_group_tests_name("cores", tests, file_tree_make, file_tree_remove);
}

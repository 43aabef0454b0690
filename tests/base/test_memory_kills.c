/* Counters of the kernel's memory kills in trees of files as systems lay them out. */
#include "base/memory_kills.h"
#include "file_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void nothing_counts_them(void **state)
{
    (void)state;
    assert_int_equal(memory_kills_count(file_tree_root), 0);
}

static void the_host_and_both_versions_of_groups_count(void **state)
{
    (void)state;
    file_tree_put("/proc/vmstat", "nr_free_pages 12\noom_kill 3\n");
    assert_int_equal(memory_kills_count(file_tree_root), 3);
    file_tree_put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
                                          "32 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    file_tree_put("/proc/self/cgroup", "0::/job/task\n4:memory:/old\n");
    file_tree_put("/sys/fs/cgroup/job/memory.events", "low 0\noom 9\noom_kill 2\noom_group_kill 1\n");
    file_tree_put("/sys/fs/cgroup/job/task/memory.events", "oom_kill 1\n");
    file_tree_put("/sys/fs/cgroup/memory/old/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 10\n");
    assert_int_equal(memory_kills_count(file_tree_root), 3 + 2 + 1 + 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_counts_them),
        cmocka_unit_test(the_host_and_both_versions_of_groups_count),
    };
    return cmocka_run_group_tests_name("memory_kills", tests, file_tree_make, file_tree_remove);
}

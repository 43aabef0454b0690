/* Counters of the kernel's memory kills in trees of files as systems lay them out. */
#include "base/memory_kills.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[64];

static void put(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0755);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/teskd_kills_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void nothing_counts_them(void **state)
{
    (void)state;
    assert_int_equal(memory_kills_count(root), 0);
}

static void the_host_and_both_versions_of_groups_count(void **state)
{
    (void)state;
    put("/proc/vmstat", "nr_free_pages 12\noom_kill 3\n");
    assert_int_equal(memory_kills_count(root), 3);
    put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
                                "32 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("/proc/self/cgroup", "0::/job/task\n4:memory:/old\n");
    put("/sys/fs/cgroup/job/memory.events", "low 0\noom 9\noom_kill 2\noom_group_kill 1\n");
    put("/sys/fs/cgroup/job/task/memory.events", "oom_kill 1\n");
    put("/sys/fs/cgroup/memory/old/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 10\n");
    assert_int_equal(memory_kills_count(root), 3 + 2 + 1 + 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_counts_them),
        cmocka_unit_test(the_host_and_both_versions_of_groups_count),
    };
    return cmocka_run_group_tests_name("memory_kills", tests, make_root, remove_root);
}

/* CPU quotas in trees of files as systems lay them out. */
#include "base/cpu_quota.h"
#include "file_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static cpu_quota found(void)
{
    cpu_quota quota;
    cpu_quota_find(&quota, file_tree_root);
    return quota;
}

static void is_in(const cpu_quota *quota, const char *file)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", file_tree_root, file);
    assert_string_equal(quota->file, whole);
    assert_true(quota->group != 0);
}

#define MOUNT_2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"

static void nothing_to_read_is_no_limit(void **state)
{
    (void)state;
    assert_true(found().cores == 0);
    file_tree_put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n30 23 0:26 / /sys\n" MOUNT_2);
    assert_true(found().cores == 0);
    file_tree_put("/proc/self/cgroup", "0::/\nnonsense\n");
    assert_true(found().cores == 0);
    file_tree_put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_true(found().cores == 0);
    file_tree_put("/sys/fs/cgroup/cpu.max", "nonsense");
    assert_true(found().cores == 0);
    file_tree_put("/sys/fs/cgroup/cpu.max", "100000 0\n");
    assert_true(found().cores == 0);
}

/* A container with a namespace of its own sees its group as the file_tree_root. */
static void container_with_a_namespace(void **state)
{
    (void)state;
    file_tree_put("/proc/self/mountinfo", MOUNT_2);
    file_tree_put("/proc/self/cgroup", "0::/\n");
    file_tree_put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    cpu_quota quota = found();
    assert_true(quota.cores == 1.5);
    is_in(&quota, "/sys/fs/cgroup/cpu.max");
}

static void tightest_of_nested_groups(void **state)
{
    (void)state;
    file_tree_put("/proc/self/mountinfo", MOUNT_2);
    file_tree_put("/proc/self/cgroup", "0::/system.slice/slurm/job_7/step_0\n");
    file_tree_put("/sys/fs/cgroup/system.slice/slurm/job_7/step_0/cpu.max", "800000 100000\n");
    file_tree_put("/sys/fs/cgroup/system.slice/slurm/job_7/cpu.max", "400000 100000\n");
    file_tree_put("/sys/fs/cgroup/system.slice/slurm/cpu.max", "max 100000\n");
    file_tree_put("/sys/fs/cgroup/system.slice/cpu.max", "1600000 100000\n");
    cpu_quota quota = found(), again;
    assert_true(quota.cores == 4);
    is_in(&quota, "/sys/fs/cgroup/system.slice/slurm/job_7/cpu.max");
    file_tree_put("/proc/self/cgroup",
                  "0::/system.slice/slurm/job_7/step_1\n"); /* another step of the job: the same group */
    file_tree_put("/sys/fs/cgroup/system.slice/slurm/job_7/step_1/cpu.max", "max 100000\n");
    again = found();
    assert_true(again.cores == 4 && again.group == quota.group);
}

/* The first version without a namespace: the path is the host's, and a part of it is what the container has mounted. */
static void first_version(void **state)
{
    (void)state;
    file_tree_put(
        "/proc/self/mountinfo",
        "33 31 0:30 /docker/abc /sys/fs/cgroup/cpuacct ro - cgroup cgroup rw,cpuacct\n"
        "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n");
    file_tree_put("/proc/self/cgroup",
                  "5:cpuset:/other\n4:cpu,cpuacct:/docker/abc/inner\n1:name=systemd:/docker/abc\n0::/\n");
    file_tree_put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
    file_tree_put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    file_tree_put("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "-1\n");
    file_tree_put("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us", "100000\n");
    cpu_quota quota = found();
    assert_true(quota.cores == 2);
    is_in(&quota, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us");
    file_tree_put("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "25000\n");
    quota = found();
    assert_true(quota.cores == 0.25);
    is_in(&quota, "/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us");
    /* a group outside of what is mounted: the mounted one is all that can be seen */
    file_tree_put("/proc/self/cgroup", "4:cpu,cpuacct:/docker/abcd\n");
    assert_true(found().cores == 2);
    file_tree_put("/proc/self/cgroup", "4:cpu,cpuacct:/docker/abc/../x\n");
    assert_true(found().cores == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_to_read_is_no_limit, file_tree_make, file_tree_remove),
        cmocka_unit_test_setup_teardown(container_with_a_namespace, file_tree_make, file_tree_remove),
        cmocka_unit_test_setup_teardown(tightest_of_nested_groups, file_tree_make, file_tree_remove),
        cmocka_unit_test_setup_teardown(first_version, file_tree_make, file_tree_remove),
    };
    return cmocka_run_group_tests_name("cpu_quota", tests, NULL, NULL);
}

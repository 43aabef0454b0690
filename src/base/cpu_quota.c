/* Owns nothing; reads the files of control groups. Threads: any. */
#include "base/cpu_quota.h"
#include "base/control_groups.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4 * 4096 };

static FILE *open_under(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", folder, name);
    return fopen(path, "r");
}

/* The numbers of a one-line file; how many there are. */
static int read_numbers(const char *folder, const char *name, double number[2])
{
    FILE *file = open_under(folder, name);
    const int count = file != NULL ? fscanf(file, "%lf %lf", &number[0], &number[1]) : 0;
    if (file != NULL)
        fclose(file);
    return count > 0 ? count : 0; /* "max" is no number */
}

/* The limit of one group in cores, 0 when it has none. */
static double limit_of(const char *folder, bool second_version)
{
    double number[2], period[2];
    if (second_version)
        return read_numbers(folder, "/cpu.max", number) == 2 && number[1] > 0 ? number[0] / number[1] : 0;
    const bool given = read_numbers(folder, "/cpu.cfs_quota_us", number) >= 1 && number[0] > 0 &&
                       read_numbers(folder, "/cpu.cfs_period_us", period) >= 1 && period[0] > 0;
    return given ? number[0] / period[0] : 0;
}

static void take_limit(void *context, const char *folder, bool second_version)
{
    cpu_quota *quota = context;
    struct stat status;
    const double cores = limit_of(folder, second_version);
    if (cores <= 0 || (quota->cores > 0 && cores >= quota->cores))
        return;
    const char *name = second_version ? "cpu.max" : "cpu.cfs_quota_us";
    quota->cores = cores;
    quota->group = stat(folder, &status) == 0 ? (uint64_t)status.st_ino : 0;
    snprintf(quota->file, sizeof quota->file, "%.*s/%s", CPU_QUOTA_PATH_BYTES - 32, folder, name);
}

void cpu_quota_find(cpu_quota *quota, const char *root)
{
    *quota = (cpu_quota){0};
    control_groups_visit(root, "cpu", take_limit, quota);
}

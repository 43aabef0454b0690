/* Owns nothing; reads /proc/self/cgroup, /proc/self/mountinfo and the files of control groups. Threads: any. */
#include "base/cpu_quota.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LINE_BYTES = 4096 };

static FILE *open_under(const char *folder, const char *name)
{
    char path[4 * LINE_BYTES];
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

/* From the group in `folder` up to the one that is mounted, whose folder is the first `top` characters. */
static void look_upwards(cpu_quota *quota, char *folder, size_t top, bool second_version)
{
    for (;;) {
        struct stat status;
        const double cores = limit_of(folder, second_version);
        if (cores > 0 && (quota->cores <= 0 || cores < quota->cores)) {
            const char *name = second_version ? "cpu.max" : "cpu.cfs_quota_us";
            quota->cores = cores;
            quota->group = stat(folder, &status) == 0 ? (uint64_t)status.st_ino : 0;
            snprintf(quota->file, sizeof quota->file, "%.*s/%s", CPU_QUOTA_PATH_BYTES - 32, folder, name);
        }
        char *slash = strrchr(folder + top, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

/* Is `word` among the words of a list with commas? */
static bool has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

/* This process's group, as /proc/self/cgroup has it: "4:cpu,cpuacct:/path", or "0::/path" in the second version. */
static bool own_group(const char *root, bool second_version, char path[LINE_BYTES])
{
    char line[LINE_BYTES];
    FILE *file = open_under(root, "/proc/self/cgroup");
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        found = second_version ? controllers[1] == '\0' : has_word(controllers + 1, "cpu");
        snprintf(path, LINE_BYTES, "%s", group);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* The part of a group's path below what is mounted; empty where the group cannot be seen from here. */
static const char *below(const char *group, const char *mounted)
{
    const size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    const bool inside = strncmp(group, mounted, length) == 0 && (group[length] == '/' || group[length] == '\0');
    return !inside || strstr(group, "/..") != NULL || strcmp(group + length, "/") == 0 ? "" : group + length;
}

/* One line of /proc/self/mountinfo: "31 23 0:28 MOUNTED PLACE options ... - TYPE source OPTIONS". */
static void look_at_mount(cpu_quota *quota, const char *root, const char *line)
{
    char mounted[LINE_BYTES], place[LINE_BYTES], type[64], options[LINE_BYTES], group[LINE_BYTES];
    char folder[3 * LINE_BYTES];
    const char *behind = strstr(line, " - ");
    if (behind == NULL || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, place) != 2 ||
        sscanf(behind, " - %63s %*s %4095s", type, options) != 2)
        return;
    const bool second_version = strcmp(type, "cgroup2") == 0;
    if (!second_version && (strcmp(type, "cgroup") != 0 || !has_word(options, "cpu")))
        return;
    if (!own_group(root, second_version, group))
        return;
    const int top = snprintf(folder, sizeof folder, "%s%s", root, place);
    snprintf(folder + top, sizeof folder - (size_t)top, "%s", below(group, mounted));
    look_upwards(quota, folder, (size_t)top, second_version);
}

void cpu_quota_find(cpu_quota *quota, const char *root)
{
    char line[LINE_BYTES];
    *quota = (cpu_quota){0};
    FILE *file = open_under(root, "/proc/self/mountinfo");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        look_at_mount(quota, root, line);
    if (file != NULL)
        fclose(file);
}

/* Owns nothing; reads counters of the kernel. Threads: any. */
#include "base/memory_kills.h"
#include "base/control_groups.h"

#include <inttypes.h>
#include <stdio.h>

enum { PATH_BYTES = 4 * 4096 };

/* The number in the line "oom_kill NUMBER" of a file. */
static uint64_t read_count(const char *folder, const char *name)
{
    char path[PATH_BYTES], line[256];
    uint64_t count = 0;
    snprintf(path, sizeof path, "%s%s", folder, name);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "oom_kill %" SCNu64, &count) == 1)
            break;
    if (file)
        fclose(file);
    return count;
}

static void add_group(void *context, const char *folder, bool second_version)
{
    *(uint64_t *)context += read_count(folder, second_version ? "/memory.events" : "/memory.oom_control");
}

uint64_t memory_kills_count(const char *root)
{
    uint64_t count = read_count(root, "/proc/vmstat");
    control_groups_visit(root, "memory", add_group, &count);
    return count;
}

/* Owns nothing; reads /proc/self/cgroup and /proc/self/mountinfo. Threads: any. */
#include "base/control_groups.h"

#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 4096 };

typedef struct {
    const char *root, *controller;
    void (*visit)(void *context, const char *folder, bool second_version);
    void *context;
} walk;

static FILE *open_under(const char *root, const char *name)
{
    char path[2 * LINE_BYTES];
    snprintf(path, sizeof path, "%s%s", root, name);
    return fopen(path, "r");
}

/* From the group in `folder` up to the one that is mounted, whose folder is the first `top` characters. */
static void walk_upwards(const walk *w, char *folder, size_t top, bool second_version)
{
    for (;;) {
        w->visit(w->context, folder, second_version);
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
static bool own_group(const walk *w, bool second_version, char path[LINE_BYTES])
{
    char line[LINE_BYTES];
    FILE *file = open_under(w->root, "/proc/self/cgroup");
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        found = second_version ? controllers[1] == '\0' : has_word(controllers + 1, w->controller);
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
static void look_at_mount(const walk *w, const char *line)
{
    char mounted[LINE_BYTES], place[LINE_BYTES], type[64], options[LINE_BYTES], group[LINE_BYTES];
    char folder[3 * LINE_BYTES];
    const char *behind = strstr(line, " - ");
    if (behind == NULL || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, place) != 2 ||
        sscanf(behind, " - %63s %*s %4095s", type, options) != 2)
        return;
    const bool second_version = strcmp(type, "cgroup2") == 0;
    if (!second_version && (strcmp(type, "cgroup") != 0 || !has_word(options, w->controller)))
        return;
    if (!own_group(w, second_version, group))
        return;
    const int top = snprintf(folder, sizeof folder, "%s%s", w->root, place);
    snprintf(folder + top, sizeof folder - (size_t)top, "%s", below(group, mounted));
    walk_upwards(w, folder, (size_t)top, second_version);
}

void control_groups_visit(const char *root, const char *controller,
                          void (*visit)(void *context, const char *folder, bool second_version), void *context)
{
    const walk w = {.root = root, .controller = controller, .visit = visit, .context = context};
    char line[LINE_BYTES];
    FILE *file = open_under(root, "/proc/self/mountinfo");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        look_at_mount(&w, line);
    if (file != NULL)
        fclose(file);
}

/* Owns the search for recipes, relative to the executable, so that an installed tree can be moved. No state; any
 * thread. */
#include "cli/recipes.h"
#include "base/error.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(RECIPE_PATH_BYTES >= PATH_MAX, "realpath fills PATH_MAX bytes");

/* The folder of this program's file; empty when the system does not tell. */
static void program_folder(char folder[RECIPE_PATH_BYTES])
{
    ssize_t length = readlink("/proc/self/exe", folder, RECIPE_PATH_BYTES - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
}

static bool recipe_folder(char folder[RECIPE_PATH_BYTES])
{
    static const char *const places[] = {"../share/teskd/configs", "../configs"};
    char program[RECIPE_PATH_BYTES], place[RECIPE_PATH_BYTES + 32];
    program_folder(program);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(place, sizeof place, "%s/%s", program, places[i]);
        if (realpath(place, folder))
            return true;
    }
    return false;
}

static int is_ini(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 4 && strcmp(entry->d_name + length - 4, ".ini") == 0;
}

static int not_found(const char *name, const char *folder)
{
    char names[1024] = "";
    struct dirent **entries;
    int count = scandir(folder, &entries, is_ini, alphasort);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return error_set(ERROR_FILE, "%s: no such file, and no such recipe; the recipes in %s are %s", name, folder,
                     count > 0 ? names : "none");
}

int recipe_find(const char *name, char path[RECIPE_PATH_BYTES], bool *is_recipe)
{
    char folder[RECIPE_PATH_BYTES];
    *is_recipe = false;
    int length = snprintf(path, RECIPE_PATH_BYTES, "%s", name);
    CHECK(length < RECIPE_PATH_BYTES, ERROR_FILE, "--config: a path of %d bytes is too long", length);
    if (strchr(name, '/') || access(name, F_OK) == 0)
        return 0;
    CHECK(recipe_folder(folder), ERROR_FILE, "%s: no such file, and no recipes beside the program", name);
    length = snprintf(path, RECIPE_PATH_BYTES, "%s/%s", folder, name);
    if (length >= RECIPE_PATH_BYTES || access(path, F_OK) != 0)
        return not_found(name, folder);
    *is_recipe = true;
    return 0;
}

/* Owns the tree that a test makes; one per process. */
#include "file_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

char file_tree_root[64];

void file_tree_put(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", file_tree_root, path);
    for (char *slash = strchr(whole + strlen(file_tree_root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0755);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

int file_tree_make(void **state)
{
    (void)state;
    snprintf(file_tree_root, sizeof file_tree_root, "/tmp/teskd_tree_XXXXXX");
    return mkdtemp(file_tree_root) ? 0 : -1;
}

int file_tree_remove(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", file_tree_root);
    return system(command);
}

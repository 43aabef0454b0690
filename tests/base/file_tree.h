/* A tree of files in place of /proc and /sys. */
#ifndef TESKD_TESTS_BASE_FILE_TREE_H
#define TESKD_TESTS_BASE_FILE_TREE_H

/* Where the tree is: what the code under test takes as its root. Empty before file_tree_make. */
extern char file_tree_root[64];

/* Setup and teardown of cmocka. */
int file_tree_make(void **state);
int file_tree_remove(void **state);

/* Writes a file, and the folders that it is in. */
void file_tree_put(const char *path, const char *text);

#endif

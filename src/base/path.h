/* Home folders at the start of paths, as a shell would write them out. */
#ifndef TESKD_BASE_PATH_H
#define TESKD_BASE_PATH_H

#include <stddef.h>

/* Copies `path` to `out` with "~" or "~user" at its start replaced by that home folder; "./~" is a file of that name.
 * ERROR_SETTINGS when there is no such user, no home folder or no room. */
int path_expand(const char *path, char *out, size_t bytes);

#endif

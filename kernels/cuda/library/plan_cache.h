/* Chosen plans, usually on disk: one folder for each library version and device, in it one file for each operation.
 *
 * A file is written whole under another name and then renamed, so that processes may share a cache. One that is
 * damaged, or of another operation whose name has the same hash, counts as absent and is written anew.
 */
#ifndef TESKD_KERNELS_CUDA_PLAN_CACHE_H
#define TESKD_KERNELS_CUDA_PLAN_CACHE_H

#include <stddef.h>

typedef struct plan_cache plan_cache;

/* The user's folder: $XDG_CACHE_HOME/teskd, or ~/.cache/teskd. ERROR_FILE when neither variable is set. */
int plan_cache_default_folder(char *folder, size_t bytes);

/* An empty folder is the user's. `name` is the version and device in words; what suits no file name in it is replaced.
 * Makes the folders. */
int plan_cache_open(plan_cache **out, const char *folder, const char *name);

/* One that ends with the process, where there is no folder. */
int plan_cache_open_memory(plan_cache **out);
void plan_cache_close(plan_cache *cache);

/* The plan of that key, to be freed; NULL when there is none. */
char *plan_cache_get(const plan_cache *cache, const char *key, size_t *bytes);

/* Keeps a plan. ERROR_FILE when it cannot be written: the program can go on without. */
int plan_cache_put(plan_cache *cache, const char *key, const char *plan, size_t bytes);

#endif

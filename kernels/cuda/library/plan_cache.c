/* Owns the files of the plan cache. Invariant: a file is read as a plan only when its key, length and checksum are as
 * they were written. Any number of threads and processes; without a folder one thread.
 *
 * A file: "teskd plan 1\n", the key, "\n", the plan's bytes and its checksum (decimal, hexadecimal), "\n", the plan. */
#include "plan_cache.h"
#include "base/atomic_file.h"
#include "base/error.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 1024, PLAN_BYTES_MAX = 256 << 20 };

static const char first_line[] = "teskd plan 1";

typedef struct kept_plan {
    struct kept_plan *next;
    char *key, *plan;
    size_t bytes;
} kept_plan;

struct plan_cache {
    char folder[PATH_BYTES]; /* empty: plans are kept in memory */
    kept_plan *kept;
};

/* FNV-1a. */
static uint64_t checksum(const char *text, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3U;
    return hash;
}

int plan_cache_default_folder(char *folder, size_t bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length;
    if (cache && *cache == '/')
        length = snprintf(folder, bytes, "%s/teskd", cache);
    else if (home && *home)
        length = snprintf(folder, bytes, "%s/.cache/teskd", home);
    else
        return error_set(ERROR_FILE, "no folder for the plan cache: neither XDG_CACHE_HOME nor HOME is set");
    CHECK((size_t)length < bytes, ERROR_FILE, "the name of the plan cache's folder is too long");
    return 0;
}

static void replace_unfit(char *name)
{
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && *name != '.' && *name != '-')
            *name = '_';
}

static int name_folder(plan_cache *cache, const char *folder, const char *name)
{
    char own[PATH_BYTES];
    if (!*folder) {
        TRY(plan_cache_default_folder(own, sizeof own));
        folder = own;
    }
    int length = snprintf(cache->folder, sizeof cache->folder, "%s/%s", folder, name);
    CHECK(length >= 0 && (size_t)length < sizeof cache->folder, ERROR_FILE,
          "the name of the plan cache's folder is too long");
    replace_unfit(cache->folder + strlen(folder) + 1);
    return make_folders(cache->folder);
}

int plan_cache_open(plan_cache **out, const char *folder, const char *name)
{
    plan_cache *cache = calloc(1, sizeof *cache);
    CHECK(cache, ERROR_MEMORY, "no memory for the plan cache");
    int code = name_folder(cache, folder, name);
    if (code < 0) {
        free(cache);
        return code;
    }
    *out = cache;
    return 0;
}

int plan_cache_open_memory(plan_cache **out)
{
    *out = calloc(1, sizeof **out);
    CHECK(*out, ERROR_MEMORY, "no memory for the plan cache");
    return 0;
}

static void free_kept(kept_plan *k)
{
    free(k->key);
    free(k->plan);
    free(k);
}

void plan_cache_close(plan_cache *cache)
{
    while (cache && cache->kept) {
        kept_plan *k = cache->kept;
        cache->kept = k->next;
        free_kept(k);
    }
    free(cache);
}

static char *copy_of(const char *bytes, size_t size)
{
    char *copy = malloc(size + 1);
    if (!copy)
        return NULL;
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    return copy;
}

static char *recall(const plan_cache *cache, const char *key, size_t *bytes)
{
    const kept_plan *k = cache->kept;
    while (k && strcmp(k->key, key) != 0)
        k = k->next;
    if (!k)
        return NULL;
    *bytes = k->bytes;
    return copy_of(k->plan, k->bytes);
}

/* In front of an older one of that key. */
static int remember(plan_cache *cache, const char *key, const char *plan, size_t bytes)
{
    kept_plan *k = calloc(1, sizeof *k);
    CHECK(k, ERROR_MEMORY, "no memory for a plan");
    *k = (kept_plan){cache->kept, copy_of(key, strlen(key)), copy_of(plan, bytes), bytes};
    if (!k->key || !k->plan) {
        free_kept(k);
        return error_set(ERROR_MEMORY, "no memory for a plan");
    }
    cache->kept = k;
    return 0;
}

static void path_of(const plan_cache *cache, const char *key, char path[PATH_BYTES + 64])
{
    snprintf(path, PATH_BYTES + 64, "%s/%016llx.plan", cache->folder, (unsigned long long)checksum(key, strlen(key)));
}

static bool line_is(FILE *file, const char *expected)
{
    for (; *expected; expected++)
        if (fgetc(file) != *expected)
            return false;
    return fgetc(file) == '\n';
}

static char *read_plan(FILE *file, const char *key, size_t *bytes)
{
    unsigned long long size, sum;
    if (!line_is(file, first_line) || !line_is(file, key))
        return NULL;
    if (fscanf(file, "%llu %llx", &size, &sum) != 2 || fgetc(file) != '\n' || size > PLAN_BYTES_MAX)
        return NULL;
    char *plan = malloc((size_t)size + 1);
    if (!plan)
        return NULL;
    bool whole = fread(plan, 1, (size_t)size, file) == size && fgetc(file) == EOF;
    if (!whole || checksum(plan, (size_t)size) != sum) {
        free(plan);
        return NULL;
    }
    plan[size] = '\0';
    *bytes = (size_t)size;
    return plan;
}

char *plan_cache_get(const plan_cache *cache, const char *key, size_t *bytes)
{
    char path[PATH_BYTES + 64];
    if (!*cache->folder)
        return recall(cache, key, bytes);
    path_of(cache, key, path);
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    char *plan = read_plan(file, key, bytes);
    fclose(file);
    return plan;
}

int plan_cache_put(plan_cache *cache, const char *key, const char *plan, size_t bytes)
{
    char path[PATH_BYTES + 64];
    atomic_file *file;
    if (!*cache->folder)
        return remember(cache, key, plan, bytes);
    path_of(cache, key, path);
    TRY(atomic_file_create(&file, path));
    fprintf(atomic_file_stream(file), "%s\n%s\n%zu %llx\n", first_line, key, bytes,
            (unsigned long long)checksum(plan, bytes));
    fwrite(plan, 1, bytes, atomic_file_stream(file));
    return atomic_file_commit(&file);
}

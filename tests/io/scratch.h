/* A folder for one test's files. */
#ifndef TESKD_TESTS_IO_SCRATCH_H
#define TESKD_TESTS_IO_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char folder[64], path[160];
} scratch;

static inline int scratch_setup(void **state)
{
    scratch *s = calloc(1, sizeof *s);
    if (!s)
        return -1;
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(s->folder, sizeof s->folder, "%s/teskd-io-XXXXXX", base);
    *state = s;
    return mkdtemp(s->folder) ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

static inline int scratch_teardown(void **state)
{
    scratch *s = *state;
    nftw(s->folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(s);
    return 0;
}

/* The path of a file in the folder; valid until the next call. */
static inline const char *scratch_path(scratch *s, const char *name)
{
    snprintf(s->path, sizeof s->path, "%s/%s", s->folder, name);
    return s->path;
}

static inline void scratch_write(scratch *s, const char *name, const void *bytes, size_t count)
{
    FILE *file = fopen(scratch_path(s, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* The whole file; the caller frees it. */
static inline uint8_t *scratch_read(scratch *s, const char *name, size_t *count)
{
    FILE *file = fopen(scratch_path(s, name), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *count = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*count + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *count, file), *count);
    fclose(file);
    return bytes;
}

/* Files in the folder. */
static inline int scratch_count(const scratch *s)
{
    DIR *folder = opendir(s->folder);
    assert_non_null(folder);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static inline void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

#endif

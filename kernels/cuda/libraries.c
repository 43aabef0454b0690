/* Owns the handles of NVIDIA's libraries and the table of their functions. Invariant: a library is either whole, with
 * every FUNCTION of libraries.def, or has a problem in words. After opening the table does not change: any thread. */
#include "libraries.h"
#include "base/error.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *title;
    int oldest;
    const char *files; /* "a|b" */
    const char *pip, *apt;
} library_row;

static const library_row library_rows[CUDA_LIBRARY_COUNT] = {
#define LIBRARY(id, title, oldest, files, pip, apt) [id] = {title, oldest, files, pip, apt},
#include "libraries.def"
};

typedef struct {
    cuda_library library;
    const char *name;
    size_t offset; /* of the pointer in cuda_libraries */
    bool optional;
} function_row;

static const function_row function_rows[] = {
#define FUNCTION(library, name) {library, #name, offsetof(cuda_libraries, name), false},
#define OPTIONAL(library, name) {library, #name, offsetof(cuda_libraries, name), true},
#include "libraries.def"
};

/* NODELETE: the handle can be closed while threads that the library started go on. */
static void *open_path(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_NODELETE);
}

/* The file in folders where it is usual but which the loader may not know. */
static void *open_in(const char *root, const char *folders, const char *file)
{
    char pattern[1024];
    glob_t found;
    void *handle = NULL;
    if (!root || !*root || snprintf(pattern, sizeof pattern, "%s/%s/%s", root, folders, file) >= (int)sizeof pattern)
        return NULL;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && !handle; i++)
            handle = open_path(found.gl_pathv[i]);
    globfree(&found);
    return handle;
}

static void *open_file(const char *file)
{
    const char *only = getenv("TESKD_CUDA_LIBRARIES");
    if (only && *only)
        return open_in(only, ".", file);
    void *handle = open_path(file);
    if (!handle)
        handle = open_in(getenv("CUDA_HOME"), "lib*", file);
    if (!handle)
        handle = open_in("/usr/local/cuda", "lib*", file);
    if (!handle)
        handle = open_in(getenv("VIRTUAL_ENV"), "lib/python3*/site-packages/nvidia/*/lib", file);
    return handle;
}

static void say_how_to_get(char *problem, size_t bytes, const library_row *row, const char *what)
{
    char wanted[32] = "";
    if (row->oldest > 0)
        snprintf(wanted, sizeof wanted, " %d.%d or newer", row->oldest / 10000, row->oldest % 10000 / 100);
    snprintf(problem, bytes,
             "%s. %s%s is needed: 'pip install %s' (its lib folder then belongs into LD_LIBRARY_PATH, unless the "
             "environment is active), or 'apt install %s' from NVIDIA's repository",
             what, row->title, wanted, row->pip, row->apt);
}

static void open_library(cuda_libraries *l, cuda_library which)
{
    const library_row *row = &library_rows[which];
    char files[128], what[192], *rest = files;
    snprintf(files, sizeof files, "%s", row->files);
    for (char *file = strtok_r(files, "|", &rest); file && !l->handle[which]; file = strtok_r(NULL, "|", &rest))
        l->handle[which] = open_file(file);
    if (l->handle[which])
        return;
    snprintf(files, sizeof files, "%s", row->files);
    files[strcspn(files, "|")] = '\0';
    snprintf(what, sizeof what, "%s cannot be opened", files);
    say_how_to_get(l->problem[which], sizeof l->problem[which], row, what);
}

static void drop_library(cuda_libraries *l, cuda_library which, const char *what)
{
    say_how_to_get(l->problem[which], sizeof l->problem[which], &library_rows[which], what);
    dlclose(l->handle[which]);
    l->handle[which] = NULL;
    l->version[which] = 0;
    for (size_t i = 0; i < sizeof function_rows / sizeof *function_rows; i++)
        if (function_rows[i].library == which)
            memset((char *)l + function_rows[i].offset, 0, sizeof(void *));
}

static void find_function(cuda_libraries *l, const function_row *row)
{
    char what[192];
    if (!l->handle[row->library])
        return;
    void *symbol = dlsym(l->handle[row->library], row->name);
    memcpy((char *)l + row->offset, &symbol, sizeof symbol);
    if (symbol || row->optional)
        return;
    snprintf(what, sizeof what, "%s has no %s: it is too old", library_rows[row->library].title, row->name);
    drop_library(l, row->library, what);
}

static void find_versions(cuda_libraries *l)
{
    int major, minor;
    if (l->handle[CUDA_NVRTC] && l->nvrtcVersion(&major, &minor) == NVRTC_SUCCESS)
        l->version[CUDA_NVRTC] = major * 10000 + minor * 100;
    if (l->handle[CUDA_CUBLASLT])
        l->version[CUDA_CUBLASLT] = (int)l->cublasLtGetVersion();
    if (l->handle[CUDA_CUDNN])
        l->version[CUDA_CUDNN] = (int)l->cudnnGetVersion();
#ifdef TESKD_HAVE_NCCL
    if (l->handle[CUDA_NCCL])
        l->ncclGetVersion(&l->version[CUDA_NCCL]);
#endif
}

static void version_text(int version, char text[32])
{
    snprintf(text, 32, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

static void check_version(cuda_libraries *l, cuda_library which)
{
    char version[32], what[192];
    if (!l->handle[which] || l->version[which] == 0 || l->version[which] >= library_rows[which].oldest)
        return;
    version_text(l->version[which], version);
    snprintf(what, sizeof what, "the %s found is %s", library_rows[which].title, version);
    drop_library(l, which, what);
}

int cuda_libraries_open(cuda_libraries **out)
{
    cuda_libraries *l = calloc(1, sizeof *l);
    CHECK(l, ERROR_MEMORY, "no memory for the table of libraries");
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        open_library(l, (cuda_library)i);
    for (size_t i = 0; i < sizeof function_rows / sizeof *function_rows; i++)
        find_function(l, &function_rows[i]);
    find_versions(l);
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        check_version(l, (cuda_library)i);
    *out = l;
    return 0;
}

void cuda_libraries_close(cuda_libraries *l)
{
    if (!l)
        return;
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        if (l->handle[i])
            dlclose(l->handle[i]);
    free(l);
}

int cuda_library_check(const cuda_libraries *l, cuda_library which)
{
    CHECK(l->handle[which], ERROR_KERNEL, "%s", l->problem[which]);
    return 0;
}

void cuda_library_version(const cuda_libraries *l, cuda_library which, char text[32])
{
    if (l->handle[which])
        version_text(l->version[which], text);
    else
        snprintf(text, 32, "none");
}

void cuda_libraries_versions(const cuda_libraries *l, char *text, size_t bytes)
{
    static const cuda_library shown[] = {CUDA_CUDNN, CUDA_CUBLASLT, CUDA_NCCL, CUDA_NVRTC};
    size_t used = 0;
    if (bytes > 0)
        *text = '\0';
    for (size_t i = 0; i < sizeof shown / sizeof *shown && used < bytes; i++) {
        char version[32];
        cuda_library_version(l, shown[i], version);
        used += (size_t)snprintf(text + used, bytes - used, "%s%s %s", i ? ", " : "", library_rows[shown[i]].title,
                                 version);
    }
}

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

/* The first one that was found is spoken of, as the one that a user expects to be taken. */
static void drop_library(cuda_libraries *l, cuda_library which, const char *what)
{
    if (!*l->problem[which])
        say_how_to_get(l->problem[which], sizeof l->problem[which], &library_rows[which], what);
    dlclose(l->handle[which]);
    l->handle[which] = NULL;
    l->version[which] = 0;
    for (size_t i = 0; i < sizeof function_rows / sizeof *function_rows; i++)
        if (function_rows[i].library == which)
            memset((char *)l + function_rows[i].offset, 0, sizeof(void *));
}

static void find_functions(cuda_libraries *l, cuda_library which)
{
    char what[192];
    for (size_t i = 0; i < sizeof function_rows / sizeof *function_rows; i++) {
        const function_row *row = &function_rows[i];
        if (row->library != which || !l->handle[which])
            continue;
        void *symbol = dlsym(l->handle[which], row->name);
        memcpy((char *)l + row->offset, &symbol, sizeof symbol);
        if (symbol || row->optional)
            continue;
        snprintf(what, sizeof what, "%s has no %s: it is too old", library_rows[which].title, row->name);
        drop_library(l, which, what);
    }
}

static int ask_version(const cuda_libraries *l, cuda_library which)
{
    int major, minor, version = 0;
    if (which == CUDA_NVRTC && l->nvrtcVersion(&major, &minor) == NVRTC_SUCCESS)
        version = major * 10000 + minor * 100;
    if (which == CUDA_CUBLASLT)
        version = (int)l->cublasLtGetVersion();
    if (which == CUDA_CUDNN)
        version = (int)l->cudnnGetVersion();
#ifdef TESKD_HAVE_NCCL
    if (which == CUDA_NCCL)
        l->ncclGetVersion(&version);
#endif
    return version;
}

static void version_text(int version, char text[32])
{
    snprintf(text, 32, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

static void check_version(cuda_libraries *l, cuda_library which)
{
    char version[32], what[192];
    if (l->handle[which])
        l->version[which] = ask_version(l, which);
    if (!l->handle[which] || l->version[which] == 0 || l->version[which] >= library_rows[which].oldest)
        return;
    version_text(l->version[which], version);
    snprintf(what, sizeof what, "the %s found is %s", library_rows[which].title, version);
    drop_library(l, which, what);
}

/* One that will not do is closed again, so that another of that name can be opened. NODELETE for the others: a handle
 * can then be closed while threads that the library started go on. */
static bool try_path(cuda_libraries *l, cuda_library which, const char *path)
{
    l->handle[which] = dlopen(path, RTLD_NOW);
    find_functions(l, which);
    check_version(l, which);
    if (!l->handle[which])
        return false;
    void *kept = dlopen(path, RTLD_NOW | RTLD_NODELETE);
    if (kept)
        dlclose(kept);
    *l->problem[which] = '\0';
    return true;
}

/* The file in folders where it is usual but which the loader may not know. */
static bool try_folders(cuda_libraries *l, cuda_library which, const char *root, const char *folders, const char *file)
{
    char pattern[1024];
    glob_t found;
    bool opened = false;
    if (!root || !*root || snprintf(pattern, sizeof pattern, "%s/%s/%s", root, folders, file) >= (int)sizeof pattern)
        return false;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && !opened; i++)
            opened = try_path(l, which, found.gl_pathv[i]);
    globfree(&found);
    return opened;
}

/* Folders by colons. */
static bool try_list(cuda_libraries *l, cuda_library which, const char *list, const char *file)
{
    char folders[1024], *rest = folders;
    bool opened = false;
    snprintf(folders, sizeof folders, "%s", list);
    for (char *folder = strtok_r(folders, ":", &rest); folder && !opened; folder = strtok_r(NULL, ":", &rest))
        opened = try_folders(l, which, folder, ".", file);
    return opened;
}

static bool try_everywhere(cuda_libraries *l, cuda_library which, const char *file)
{
    static const char packages[] = "lib/python3*/site-packages/nvidia/*/lib";
    const char *only = getenv("TESKD_CUDA_LIBRARIES"), *conda = getenv("CONDA_PREFIX");
    if (only && *only)
        return try_list(l, which, only, file);
    return try_path(l, which, file) || try_folders(l, which, getenv("CUDA_HOME"), "lib*", file) ||
           try_folders(l, which, "/usr/local/cuda", "lib*", file) ||
           try_folders(l, which, getenv("VIRTUAL_ENV"), packages, file) ||
           try_folders(l, which, conda, packages, file) || try_folders(l, which, conda, "lib", file);
}

static void open_library(cuda_libraries *l, cuda_library which)
{
    const library_row *row = &library_rows[which];
    char files[128], what[192], *rest = files;
    bool opened = false;
    snprintf(files, sizeof files, "%s", row->files);
    for (char *file = strtok_r(files, "|", &rest); file && !opened; file = strtok_r(NULL, "|", &rest))
        opened = try_everywhere(l, which, file);
    if (opened || *l->problem[which])
        return;
    snprintf(files, sizeof files, "%s", row->files);
    files[strcspn(files, "|")] = '\0';
    snprintf(what, sizeof what, "%s cannot be opened", files);
    say_how_to_get(l->problem[which], sizeof l->problem[which], row, what);
}

int cuda_libraries_open(cuda_libraries **out)
{
    cuda_libraries *l = calloc(1, sizeof *l);
    CHECK(l, ERROR_MEMORY, "no memory for the table of libraries");
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        open_library(l, (cuda_library)i);
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

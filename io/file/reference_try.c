/* Owns the trial of a reference file in a child process. Invariant: the child reads as much as any reader may, and does
 * nothing else. Main thread only (HDF5). */
#include "base/error.h"
#include "hdf5_value.h"
#include "io/file/reference_file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The trial's memory, beyond what the process has: what HDF5 needs itself, and per byte of the file. */
enum { TRIAL_SECONDS = 10, TRIAL_MEMORY = 1 << 29, MEMORY_PER_BYTE = 16, UNREADABLE = 1 };

typedef struct {
    const reference_file *file;
    int depth;
} trial;

static void read_dataset(const reference_file *f, hid_t dataset)
{
    hid_t space = H5Dget_space(dataset);
    const hdf5_expected expected = {.class = H5T_NO_CLASS, .count = H5Sget_simple_extent_npoints(space)};
    bool possible = expected.count >= 0 && expected.count <= f->bytes && hdf5_dataset_fits(dataset, &expected);
    void *values = possible ? malloc((size_t)expected.count * sizeof(double) + 1) : NULL;
    if (possible && (!values || hdf5_read_dataset(dataset, &expected, H5T_NATIVE_DOUBLE, values) < 0))
        _exit(UNREADABLE);
    free(values);
    H5Sclose(space);
}

static void read_attribute(hid_t object, const char *name)
{
    double value;
    const hdf5_expected single = {.class = H5T_NO_CLASS, .count = 1};
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hdf5_read_attribute(attribute, &single, H5T_NATIVE_DOUBLE, &value);
    H5Aclose(attribute);
}

/* H5Literate's callback; what cannot be opened, or is no numbers, is left to the real reader. */
static herr_t read_link(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    const trial *outer = context;
    trial inner = {.file = outer->file, .depth = outer->depth + 1};
    hid_t object = link->type == H5L_TYPE_HARD ? H5Oopen(group, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (object < 0)
        return 0;
    read_attribute(object, "l2");
    read_attribute(object, "sum");
    if (H5Iget_type(object) == H5I_DATASET)
        read_dataset(inner.file, object);
    else if (H5Iget_type(object) == H5I_GROUP && inner.depth < HDF5_GROUPS_DEEP)
        H5Literate(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, read_link, &inner);
    H5Oclose(object);
    return 0;
}

static void limit(__rlimit_resource_t resource, rlim_t most)
{
    const struct rlimit both = {.rlim_cur = most, .rlim_max = most}; /* at the second the kernel kills */
    setrlimit(resource, &both);
}

/* Address space of this process, in bytes. */
static rlim_t used_memory(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit_memory(const char *path)
{
    struct stat info;
    rlim_t used = used_memory();
    if (used > 0 && stat(path, &info) == 0)
        limit(RLIMIT_AS, used + TRIAL_MEMORY + MEMORY_PER_BYTE * (rlim_t)info.st_size);
}

static _Noreturn void run_child(const char *path)
{
    reference_file file;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    limit(RLIMIT_CPU, TRIAL_SECONDS);
    limit(RLIMIT_CORE, 0);
    limit_memory(path);
    if (reference_open(&file, path) == 0) {
        trial whole = {.file = &file};
        H5Literate((hid_t)file.file, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, read_link, &whole);
    }
    _exit(0);
}

int reference_try(const char *path)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0, ERROR_FILE, "%s: no process to try it in: %s", path, strerror(errno));
    if (child == 0)
        run_child(path);
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR, ERROR_FILE, "%s: lost the process that tries it: %s", path, strerror(errno));
    CHECK(
        !WIFEXITED(status) || WEXITSTATUS(status) != UNREADABLE, ERROR_FILE,
        "%s: the file is damaged: HDF5 cannot read a dataset in it, with %d MiB of memory and %d bytes per byte of the "
        "file",
        path, TRIAL_MEMORY >> 20, MEMORY_PER_BYTE);
    if (WIFEXITED(status))
        return 0;
    CHECK(WTERMSIG(status) != SIGKILL, ERROR_FILE,
          "%s: the file is damaged: HDF5 did not end reading it in %d s (unless somebody killed process %ld)", path,
          TRIAL_SECONDS, (long)child);
    return error_set(ERROR_FILE, "%s: the file is damaged: HDF5 crashed reading it (%s)", path,
                     strsignal(WTERMSIG(status)));
}

/* Owns the choice of threads. One thread. */
#include "session/threads.h"
#include "base/cpu_quota.h"
#include "base/error.h"
#include "session/cores.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* Turns of a waiting loop before a thread sleeps; libgomp has 300000. Long enough for the gaps between the loops of a
 * step, too short to keep a neighbour's core (docs/performance.md). */
static const char *const turns = "2000";

/* Has the user said how threads wait, or where? OpenMP's library may have bound this thread: a program that is started
 * anew would take that one place for all there is. */
static bool is_chosen(void)
{
    static const char *const variables[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "OMP_PLACES",
                                            "GOMP_CPU_AFFINITY"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        if (getenv(variables[i]))
            return true;
    return false;
}

/* A program that was started by way of the loader (ld.so PROGRAM) has the loader's name. */
static bool own_file(char path[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
    return length > 0 && getauxval(AT_BASE) != 0;
}

void threads_wait_briefly(char **argv)
{
    char path[PATH_MAX];
    cpu_quota quota;
    const int cores = omp_get_num_procs();
    if (is_chosen() || cores == 1 || !own_file(path))
        return;
    cpu_quota_find(&quota, "");
    const bool scarce = quota.cores > 0 && quota.cores < cores; /* what is spent waiting is lost for computing */
    const char *name = scarce ? "OMP_WAIT_POLICY" : "GOMP_SPINCOUNT";
    setenv(name, scarce ? "passive" : turns, 1);
    execv(path, argv);
    unsetenv(name);
}

/* OpenMP's library binds this thread where OMP_PROC_BIND says so; it knows what was allowed before. */
static bool openmp_binds(void)
{
    return omp_get_proc_bind() != omp_proc_bind_false;
}

/* Hardware threads that this process may use. */
static int allowed_threads(void)
{
    return omp_get_num_procs();
}

static int allowed_cores(void)
{
    cpu_set_t allowed;
    if (openmp_binds() || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return allowed_threads();
    return cores_count(&allowed);
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int within_quota(const cpu_quota *quota, int threads)
{
    return quota->cores > 0 && quota->cores < threads ? (int)ceil(quota->cores) : threads;
}

/* Where a rank may run. */
typedef struct {
    char host[64];
    cpu_set_t allowed;
    uint64_t group; /* that has a CPU quota; 0: none */
} placement;

static bool same_allowed(const placement *a, const placement *b)
{
    return strcmp(a->host, b->host) == 0 && CPU_EQUAL(&a->allowed, &b->allowed);
}

static bool same_quota(const placement *a, const placement *b)
{
    return strcmp(a->host, b->host) == 0 && a->group == b->group;
}

static int divide(int available, const placement *all, int ranks, const placement *mine, const cpu_quota *quota)
{
    int on_same = 0, in_group = 0;
    for (int rank = 0; rank < ranks; rank++) {
        on_same += same_allowed(&all[rank], mine);
        in_group += same_quota(&all[rank], mine);
    }
    const int of_allowed = available / (on_same > 0 ? on_same : 1);
    const int of_quota = quota->cores > 0 ? (int)ceil(quota->cores) / (in_group > 0 ? in_group : 1) : of_allowed;
    const int least = smaller(of_allowed, of_quota);
    return least > 1 ? least : 1;
}

/* This rank's part of so many cores or hardware threads, which other ranks may be allowed to use as well. */
static int find_share(comm *ranks, int available, int *share)
{
    const comm_info *info = comm_describe(ranks);
    cpu_quota quota;
    cpu_quota_find(&quota, "");
    placement mine = {.group = quota.cores > 0 ? quota.group : 0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the placement of %d ranks", info->size);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    sched_getaffinity(0, sizeof mine.allowed, &mine.allowed);
    const int status = comm_all_gather(ranks, &mine, sizeof mine, all);
    *share = divide(available, all, info->size, &mine, &quota);
    free(all);
    return status;
}

int threads_choose(const settings *config, comm *ranks, int *threads)
{
    int share, wanted = (int)config->run.threads;
    TRY(find_share(ranks, allowed_cores(), &share));
    const char *openmp = getenv("OMP_NUM_THREADS");
    if (wanted == 0)
        wanted = openmp && openmp[0] ? omp_get_max_threads() : share;
    *threads = smaller(wanted, omp_get_thread_limit());
    return 0;
}

bool threads_move_near(backend *device)
{
    cpu_set_t near, allowed;
    const char *address = device->ops->pci_address ? device->ops->pci_address(device) : NULL;
    if (!address || openmp_binds() || !cores_near(address, "", &near) ||
        sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return true;
    CPU_AND(&near, &near, &allowed);
    return CPU_COUNT(&near) > 0 && sched_setaffinity(0, sizeof near, &near) == 0;
}

int threads_for_loader(const settings *config, const backend *device, comm *ranks, int *threads)
{
    int share = 1;
    if (!device->ops->host_memory)
        TRY(find_share(ranks, allowed_threads(), &share));
    *threads = config->data.threads > 0 ? (int)config->data.threads : share > 2 ? share - 1 : 1;
    return 0;
}

int threads_shares(comm *ranks, int *cores, int *threads)
{
    TRY(find_share(ranks, allowed_cores(), cores));
    return find_share(ranks, allowed_threads(), threads);
}

void threads_usable(int *threads, int *cores)
{
    cpu_quota quota;
    cpu_quota_find(&quota, "");
    *threads = within_quota(&quota, allowed_threads());
    *cores = within_quota(&quota, allowed_cores());
}

void threads_cores_text(char text[THREADS_TEXT_BYTES])
{
    cpu_quota quota;
    cpu_quota_find(&quota, "");
    const int threads = allowed_threads(), cores = allowed_cores(), usable = within_quota(&quota, threads);
    int used = snprintf(text, THREADS_TEXT_BYTES, "%d %s%s", usable, cores == threads ? "core" : "hardware thread",
                        usable == 1 ? "" : "s");
    if (usable < threads)
        snprintf(text + used, THREADS_TEXT_BYTES - (size_t)used, " of %d: the CPU quota in %s is %.4g", threads,
                 quota.file, quota.cores);
    else if (cores < threads)
        snprintf(text + used, THREADS_TEXT_BYTES - (size_t)used, " on %d core%s", cores, cores == 1 ? "" : "s");
}

void threads_openmp_text(char text[THREADS_TEXT_BYTES])
{
    text[0] = '\0';
    for (char **entry = environ; *entry; entry++) {
        const size_t used = strlen(text);
        if (strncmp(*entry, "OMP_", 4) == 0 || strncmp(*entry, "GOMP_", 5) == 0)
            snprintf(text + used, THREADS_TEXT_BYTES - used, "%s%.200s", used ? " " : "", *entry);
    }
}

/* Owns the choice of threads. One thread. */
#include "session/threads.h"
#include "base/cpu_quota.h"
#include "base/error.h"

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
static int bound_cores(void)
{
    return omp_get_num_procs();
}

static int cores_of(const cpu_quota *quota)
{
    const int bound = bound_cores();
    return quota->cores > 0 && quota->cores < bound ? (int)ceil(quota->cores) : bound;
}

/* Where a rank may run. */
typedef struct {
    char host[64];
    cpu_set_t cores;
    uint64_t group; /* that has a CPU quota; 0: none */
} placement;

static bool same_cores(const placement *a, const placement *b)
{
    return strcmp(a->host, b->host) == 0 && CPU_EQUAL(&a->cores, &b->cores);
}

static bool same_quota(const placement *a, const placement *b)
{
    return strcmp(a->host, b->host) == 0 && a->group == b->group;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int share(const placement *all, int ranks, const placement *mine, const cpu_quota *quota)
{
    int on_cores = 0, in_group = 0;
    for (int rank = 0; rank < ranks; rank++) {
        on_cores += same_cores(&all[rank], mine);
        in_group += same_quota(&all[rank], mine);
    }
    const int of_cores = bound_cores() / (on_cores > 0 ? on_cores : 1);
    const int of_quota = quota->cores > 0 ? (int)ceil(quota->cores) / (in_group > 0 ? in_group : 1) : of_cores;
    const int least = smaller(of_cores, of_quota);
    return least > 1 ? least : 1;
}

int threads_choose(const settings *config, comm *ranks, int *threads)
{
    const comm_info *info = comm_describe(ranks);
    cpu_quota quota;
    cpu_quota_find(&quota, "");
    placement mine = {.group = quota.cores > 0 ? quota.group : 0}, *all = calloc((size_t)info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the placement of %d ranks", info->size);
    snprintf(mine.host, sizeof mine.host, "%s", info->host);
    sched_getaffinity(0, sizeof mine.cores, &mine.cores);
    int status = comm_all_gather(ranks, &mine, sizeof mine, all), wanted = (int)config->run.threads;
    const char *openmp = getenv("OMP_NUM_THREADS");
    if (wanted == 0)
        wanted = openmp && openmp[0] ? omp_get_max_threads() : share(all, info->size, &mine, &quota);
    *threads = smaller(wanted, omp_get_thread_limit());
    free(all);
    return status;
}

int threads_for_loader(const settings *config, bool computes_on_cores, int share)
{
    if (config->data.threads > 0)
        return (int)config->data.threads;
    return computes_on_cores || share <= 2 ? 1 : share - 1;
}

void threads_cores_text(char text[THREADS_TEXT_BYTES])
{
    cpu_quota quota;
    cpu_quota_find(&quota, "");
    const int bound = bound_cores(), cores = cores_of(&quota);
    int used = snprintf(text, THREADS_TEXT_BYTES, "%d core%s", cores, cores == 1 ? "" : "s");
    if (quota.cores > 0 && quota.cores < bound)
        snprintf(text + used, THREADS_TEXT_BYTES - (size_t)used, " of %d: the CPU quota in %s is %.4g", bound,
                 quota.file, quota.cores);
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

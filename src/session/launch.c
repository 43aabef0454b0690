/* Owns the words about a launch that works badly. One thread. */
#include "session/launch.h"
#include "base/error.h"
#include "session/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *plural(int count)
{
    return count == 1 ? "" : "s";
}

int launch_find(const session *e, launch_means *means)
{
    *means = (launch_means){.computes_on_cores = e->device->ops->host_memory,
                            .decodes = e->images.source->side == SIZE_VARIES,
                            .threads = e->threads,
                            .loader_threads = e->loader_threads};
    return threads_shares(e->ranks, &means->cores, &means->hardware_threads);
}

/* The thread that launches has to be on time, and decoding images leaves a core no gaps. */
static bool starves_loader(const launch_means *m)
{
    return !m->computes_on_cores && m->decodes && (m->hardware_threads <= m->loader_threads || m->cores < 2);
}

bool launch_starves(const launch_means *m, char text[LAUNCH_TEXT_BYTES])
{
    text[0] = '\0';
    if (starves_loader(m))
        snprintf(
            text, LAUNCH_TEXT_BYTES,
            "%d core%s (%d hardware thread%s) for %d loader thread%s and the one that launches: the GPU will wait for "
            "images; bind the rank to more cores, or not at all (mpirun --bind-to none)",
            m->cores, plural(m->cores), m->hardware_threads, plural(m->hardware_threads), m->loader_threads,
            plural(m->loader_threads));
    else if (m->computes_on_cores && m->threads > m->cores)
        snprintf(
            text, LAUNCH_TEXT_BYTES,
            "%d threads compute on %d core%s: they wait for each other; take fewer (run.threads, OMP_NUM_THREADS), or "
            "bind the rank to more cores, or not at all (mpirun --bind-to none)",
            m->threads, m->cores, plural(m->cores));
    return text[0];
}

/* Every rank says whether it has the problem. The lowest that has warns of it, so that many ranks are one line. */
static int warn_once(const session *e, bool has, const char *text)
{
    int32_t mine = has, before = 0, others = -1, *all = calloc((size_t)e->info->size, sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the warnings of %d ranks", e->info->size);
    const int status = comm_all_gather(e->ranks, &mine, sizeof mine, all);
    for (int rank = 0; rank < e->info->size; rank++) {
        others += all[rank];
        before += rank < e->info->rank ? all[rank] : 0;
    }
    free(all);
    if (status == 0 && has && before == 0 && others > 0)
        log_warning(e->log, "%s (the same on %d other rank%s)", text, others, plural(others));
    else if (status == 0 && has && before == 0)
        log_warning(e->log, "%s", text);
    return status;
}

/* The text of a GPU has its name and memory, and the versions of its libraries. */
static int warn_of_unequal_gpus(const session *e)
{
    char mine[LAUNCH_TEXT_BYTES / 2 - 64], first[sizeof mine], text[LAUNCH_TEXT_BYTES];
    snprintf(mine, sizeof mine, "%s", e->device->ops->description(e->device));
    memcpy(first, mine, sizeof first);
    TRY(comm_broadcast(e->ranks, first, sizeof first, 0));
    snprintf(text, sizeof text, "this rank has \"%s\", but rank 0 \"%s\": every step waits for the slower one", mine,
             first);
    return warn_once(e, strcmp(mine, first) != 0, text);
}

int launch_warn(const session *e)
{
    launch_means means;
    char text[LAUNCH_TEXT_BYTES];
    TRY(launch_find(e, &means));
    const bool starves = launch_starves(&means, text);
    TRY(warn_once(e, starves, text));
    return means.computes_on_cores ? 0 : warn_of_unequal_gpus(e);
}

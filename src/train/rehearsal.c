/* Owns the faults of a rehearsal. Threads: main thread, from within the calls that enter a phase. */
#include "train/rehearsal.h"
#include "base/clock.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Long enough for the peers to hear which phase this rank is in: a real fault seldom comes at a phase's first moment.
 */
enum { TELL_US = 300000 };

static const double longest_sleep = 60;

static rank_phase wanted_phase(const session *e)
{
    static const rank_phase phases[] = {
        [REHEARSE_START] = PHASE_START,           [REHEARSE_DATA] = PHASE_DATA,
        [REHEARSE_COMPUTE] = PHASE_COMPUTE,       [REHEARSE_ALL_REDUCE] = PHASE_ALL_REDUCE,
        [REHEARSE_CHECKPOINT] = PHASE_CHECKPOINT, [REHEARSE_EVALUATE] = PHASE_EVALUATE};
    return phases[e->config.run.rehearse_phase];
}

static bool is_due(const rehearsal *r, const rank_standing *now)
{
    const int64_t step = (now->epoch - 1) * r->steps + now->step;
    const rank_phase phase = wanted_phase(r->e);
    return !r->done && standing_phase(now) == phase && (phase == PHASE_START || step >= r->e->config.run.rehearse_step);
}

static void hang(void)
{
    for (;;)
        pause();
}

/* As slow again as the phase's last round was, without this sleep. */
static void sleep_along(rehearsal *r)
{
    const double now = clock_seconds(), round = r->entered > 0 ? now - r->entered - r->slept : 0;
    r->entered = now;
    r->slept = fmin(round, longest_sleep);
    clock_sleep_us((long)(r->slept * 1e6));
}

static void put_nan(const session *e, const char *name)
{
    static const uint16_t half = 0x7e00, brain = 0x7fc0;
    const float single = NAN;
    const double real = NAN;
    const store_entry *entry = store_find(&e->tensors, name);
    if (!entry)
        return;
    const struct {
        const void *bits;
        size_t bytes;
    } nan[] = {
        [DTYPE_F16] = {&half, 2}, [DTYPE_BF16] = {&brain, 2}, [DTYPE_F32] = {&single, 4}, [DTYPE_F64] = {&real, 8}};
    const dtype type = (dtype)entry->desc.dtype;
    e->device->ops->write(e->device, entry->memory, nan[type].bits, nan[type].bytes);
}

/* In the first weight, and in the copy of it that products read. */
static void spoil_weight(const session *e)
{
    for (uint32_t i = 0; i < e->tensors.n_entries; i++) {
        char copy[2 * GRAPH_NAME_BYTES];
        const char *name = e->tensors.entries[i].name;
        if (store_role(name) != ENTRY_MODEL)
            continue;
        put_nan(e, name);
        snprintf(copy, sizeof copy, "copy/%s", name);
        put_nan(e, copy);
        return;
    }
}

/* Writes fail from here on, as on a full disk or over a quota. */
static void fill_disk(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void entered(void *context, const rank_standing *now)
{
    rehearsal *r = context;
    const int fault = r->e->config.run.rehearse_fault;
    if (!is_due(r, now))
        return;
    if (fault == FAULT_SLOW) {
        sleep_along(r);
        return;
    }
    r->done = true;
    clock_sleep_us(TELL_US);
    switch (fault) {
    case FAULT_KILL:
        raise(SIGKILL);
        break;
    case FAULT_STOP:
        raise(SIGSTOP);
        break;
    case FAULT_CRASH:
        raise(SIGSEGV);
        break;
    case FAULT_ABORT:
        abort();
    case FAULT_HANG:
        hang();
        break;
    case FAULT_NAN:
        spoil_weight(r->e);
        break;
    default:
        fill_disk();
        break;
    }
}

void rehearsal_start(rehearsal *r, session *e, int64_t steps)
{
    *r = (rehearsal){.e = e, .steps = steps};
    if (e->config.run.rehearse_fault == FAULT_NONE)
        return;
    if (e->info->rank == 0)
        log_warning(e->log, "run.rehearse_fault: something will go wrong on purpose on rank %lld",
                    (long long)e->config.run.rehearse_rank);
    if (e->config.run.rehearse_rank == e->info->rank)
        comm_observe(e->ranks, entered, r);
    comm_enter(e->ranks, PHASE_START);
}

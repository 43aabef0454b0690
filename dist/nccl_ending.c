/* Owns the thread that ends a communicator, and the record that both threads see: freed by the main thread when the
 * other one is done, and else never. */
#include "nccl_ending.h"

#include "base/clock.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <stdlib.h>

struct nccl_ending {
    nccl_end *end;
    ncclComm_t communicator;
    pthread_t thread;
    atomic_bool done;
};

static void *run(void *argument)
{
    nccl_ending *ending = argument;
    ending->end(ending->communicator);
    atomic_store(&ending->done, true);
    return NULL;
}

nccl_ending *nccl_ending_start(nccl_end *end, ncclComm_t communicator)
{
    nccl_ending *ending = calloc(1, sizeof *ending);
    if (!ending)
        return NULL;
    ending->end = end;
    ending->communicator = communicator;
    if (thread_start(&ending->thread, run, ending) == 0)
        return ending;
    free(ending);
    return NULL;
}

bool nccl_ending_wait(nccl_ending *ending, double seconds)
{
    if (!ending)
        return false;
    double limit = clock_seconds() + seconds;
    for (int polls = 0; !atomic_load(&ending->done) && clock_seconds() < limit;)
        clock_pause(&polls);
    if (!atomic_load(&ending->done)) {
        pthread_detach(ending->thread);
        return false;
    }
    pthread_join(ending->thread, NULL);
    free(ending);
    return true;
}

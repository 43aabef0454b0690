/* Monotonic time, for deadlines, and pauses of waits. */
#ifndef TESKD_BASE_CLOCK_H
#define TESKD_BASE_CLOCK_H

#include <sched.h>
#include <time.h>

static inline double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void clock_sleep_us(long microseconds)
{
    struct timespec wait = {.tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000};
    nanosleep(&wait, NULL);
}

/* Between two polls of a wait that has polled `*polls` times: first none, then others go first, then a sleep. Ranks may
 * share cores: one that waits must not take time from one that computes. */
static inline void clock_pause(int *polls)
{
    enum { SPINS = 200, YIELDS = 2000, SLEEP_US = 50 };
    if (*polls >= SPINS + YIELDS)
        clock_sleep_us(SLEEP_US);
    else if ((*polls)++ >= SPINS)
        sched_yield();
}

#endif

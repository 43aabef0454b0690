/* Monotonic time, for deadlines. */
#ifndef TESKD_DIST_CLOCK_H
#define TESKD_DIST_CLOCK_H

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

#endif

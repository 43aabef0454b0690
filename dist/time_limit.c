/* Owns the thread that waits for the end of something else. `mutex` guards `stopped`. */
#include "time_limit.h"

#include "base/thread.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct time_limit {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stopped;
    struct timespec until;
    void (*end)(const char *message);
    char message[256];
};

static void *watch(void *argument)
{
    time_limit *limit = argument;
    int error = 0;
    pthread_mutex_lock(&limit->mutex);
    while (!limit->stopped && error == 0)
        error = pthread_cond_timedwait(&limit->changed, &limit->mutex, &limit->until);
    bool late = !limit->stopped;
    pthread_mutex_unlock(&limit->mutex);
    if (late)
        limit->end(limit->message);
    return NULL;
}

static void init_condition(pthread_cond_t *changed)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void free_limit(time_limit *limit)
{
    pthread_cond_destroy(&limit->changed);
    pthread_mutex_destroy(&limit->mutex);
    free(limit);
}

time_limit *time_limit_start(double seconds, void (*end)(const char *message), const char *what)
{
    time_limit *limit = end ? calloc(1, sizeof *limit) : NULL;
    if (!limit)
        return NULL;
    limit->end = end;
    snprintf(limit->message, sizeof limit->message,
             "%s has taken %g s: a rank may have died, or have never started, meanwhile", what, seconds);
    clock_gettime(CLOCK_MONOTONIC, &limit->until);
    limit->until.tv_sec += (time_t)seconds + 1;
    pthread_mutex_init(&limit->mutex, NULL);
    init_condition(&limit->changed);
    if (thread_start(&limit->thread, watch, limit) == 0)
        return limit;
    free_limit(limit);
    return NULL;
}

void time_limit_stop(time_limit *limit)
{
    if (!limit)
        return;
    pthread_mutex_lock(&limit->mutex);
    limit->stopped = true;
    pthread_cond_signal(&limit->changed);
    pthread_mutex_unlock(&limit->mutex);
    pthread_join(limit->thread, NULL);
    free_limit(limit);
}

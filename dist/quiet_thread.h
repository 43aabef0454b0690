/* Threads that take no signals. */
#ifndef TESKD_DIST_QUIET_THREAD_H
#define TESKD_DIST_QUIET_THREAD_H

#include <pthread.h>
#include <signal.h>

/* 0, or the error number of pthread_create. */
static inline int quiet_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

#endif

/* Every thread but the main one takes no signals: those come to the thread that waits for them (train/signals.h). */
#ifndef TESKD_BASE_THREAD_H
#define TESKD_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>

/* 0, or the error number of pthread_create. */
static inline int thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

#endif

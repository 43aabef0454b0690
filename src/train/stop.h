/* An orderly stop: SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU ask the training to stop after the step it is
 * in.
 */
#ifndef TESKD_TRAIN_STOP_H
#define TESKD_TRAIN_STOP_H

/* Gives SIGHUP back to what it was when this process started (nohup ignores it), whatever libraries made of it. */
void stop_take_back(void);

/* First of all, before any other thread starts: from now on these signals wait, also for the program that this one may
 * become by exec. A SIGHUP that is ignored stays so. */
void stop_block(void);

/* Comes after stop_block: from now on the signals leave a note. A SIGINT or SIGTERM that comes more than a second after
 * the first signal ends the process as usual; sooner, it is the same request sent twice, as `timeout` and terminals do.
 *
 * Until stop_heed is called nobody looks at the note: a moment after a signal `end` is called, from a thread of
 * its own, with `context` and the signal's name, and has to end the process. Returns 0, or ERROR_INTERNAL where no
 * thread can be had. */
int stop_listen(void (*end)(void *context, const char *signal), void *context);

/* From now on the main thread looks at stop_signal. Does not return where `end` has been called. */
void stop_heed(void);

/* The number of the first signal that came, or 0. Any thread. */
int stop_signal(void);

/* "SIGTERM" and so on, of a number that stop_signal gave. */
const char *stop_signal_name(int number);

#endif

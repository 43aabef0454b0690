/* An orderly stop: SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU ask the training to stop after the step it is
 * in.
 */
#ifndef TESKD_TRAIN_SIGNALS_H
#define TESKD_TRAIN_SIGNALS_H

/* Gives SIGHUP back to what it was when this process started (nohup ignores it), whatever libraries made of it. */
void signals_take_back(void);

/* First of all, before any other thread starts: from now on these signals wait, also for the program that this one may
 * become by exec. A SIGHUP that is ignored stays so. */
void signals_block(void);

/* Comes after signals_block: from now on the signals leave a note. A SIGINT or SIGTERM that comes more than a second
 * after the first signal ends the process as usual. Sooner, it is the same request sent twice, as `timeout` and
 * terminals do.
 *
 * Until signals_heed is called nobody looks at the note. Then, a moment after a signal, `end` is called from a thread
 * of its own, with `context` and the signal's name; it has to end the process. Returns 0, or ERROR_INTERNAL where no
 * thread can be had. */
int signals_listen(void (*end)(void *context, const char *signal), void *context);

/* From now on the main thread looks at signals_received. Does not return where `end` has been called. */
void signals_heed(void);

/* The number of the first signal that came, or 0. Any thread. */
int signals_received(void);

/* "SIGTERM" and so on, of a number that signals_received gave. */
const char *signals_name(int number);

#endif

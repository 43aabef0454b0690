/* A polite end: SIGTERM, SIGINT and SIGUSR2 ask the training to stop after the step it is in. */
#ifndef TESKD_TRAIN_STOP_H
#define TESKD_TRAIN_STOP_H

/* From now on the signals only leave a note; a second one of the same kind ends the process as usual. */
void stop_listen(void);

/* The number of the signal that came, or 0. */
int stop_signal(void);

#endif

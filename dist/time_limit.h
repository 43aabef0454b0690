/* A limit for what blocks without one: a thread that calls a function when it has taken too long. */
#ifndef TESKD_DIST_TIME_LIMIT_H
#define TESKD_DIST_TIME_LIMIT_H

typedef struct time_limit time_limit;

/* Calls `end` with "WHAT has taken S s ..." after `seconds`. NULL, and no limit, where `end` is NULL or there is no
 * thread to be had. */
time_limit *time_limit_start(double seconds, void (*end)(const char *message), const char *what);

/* The work has ended. NULL is fine. */
void time_limit_stop(time_limit *limit);

#endif

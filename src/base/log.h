/* What the program says while it runs: information from rank 0 on stdout, warnings and errors of any rank on stderr.
 *
 * Each line is written at once, so that lines of several threads do not mix. Any thread may call any function.
 */
#ifndef TESKD_BASE_LOG_H
#define TESKD_BASE_LOG_H

#include <stdbool.h>
#include <stdio.h>

typedef struct {
    FILE *out, *err; /* stdout and stderr after log_open */
    bool terminal;   /* `out` and `err` are one, so that a live line can be rewritten */
    bool live;       /* a live line stands on the terminal */
    int rank, size;
    char host[64];
    int error;    /* errno of the first write to `out` that failed, or 0 */
    bool is_note; /* the output is only the running commentary of a work that leaves files */
} logger;

/* Says nothing yet. `host` is copied. */
void log_open(logger *log, int rank, int size, const char *host);

/* One line of information; rank 0 only, nothing on other ranks. */
void log_info(logger *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Rewrites the one line that shows progress, cut to the terminal's width; nothing when stdout is no terminal. */
void log_live(logger *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "teskd: warning: text" and "teskd: text"; of several ranks with "rank R on HOST: " before the text. */
void log_warning(logger *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_error(logger *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* From now on it is no failure that `out` cannot be written. */
void log_is_note(logger *log);

/* Clears a live line and writes out what is left. ERROR_FILE, with the reason, when something that was printed to
 * `out`, here or by others, could not be written. A pipe whose reader has gone is no failure: it had read enough. */
int log_close(logger *log);

#endif

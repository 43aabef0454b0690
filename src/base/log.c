/* Owns the live line of the terminal, and the note whether the output was written. Invariant: whatever is written, a
 * live line is cleared before it, under the lock of `out`, which also guards `live` and `error`. Threads: any. */
#include "base/log.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { LINE_BYTES = 8192 };

void log_open(logger *log, int rank, int size, const char *host)
{
    memset(log, 0, sizeof *log);
    log->out = stdout;
    log->err = stderr;
    /* mpirun gives its ranks a terminal as stdout whatever its own is, but a pipe as stderr. */
    log->terminal = isatty(fileno(stdout)) == 1 && isatty(fileno(stderr)) == 1;
    log->rank = rank;
    log->size = size;
    snprintf(log->host, sizeof log->host, "%s", host);
}

/* What failed is only known now: the stream drops what it could not write. Under the lock of `out`. */
static void write_out(logger *log)
{
    if (fflush(log->out) != 0 && log->error == 0)
        log->error = errno;
}

/* Under the lock of `out`. */
static void clear_live(logger *log)
{
    if (log->live)
        fputs("\r\033[K", log->out);
    log->live = false;
}

/* A line as it may be printed: names and settings in it come from files, too. */
static void make_line(char line[LINE_BYTES], const char *format, va_list args)
{
    char raw[LINE_BYTES];
    vsnprintf(raw, sizeof raw, format, args);
    text_printable(raw, line, LINE_BYTES);
}

void log_info(logger *log, const char *format, ...)
{
    if (log->rank != 0)
        return;
    char line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    make_line(line, format, args);
    va_end(args);
    flockfile(log->out);
    clear_live(log);
    fprintf(log->out, "%s\n", line);
    write_out(log); /* a batch system's file should show it now */
    funlockfile(log->out);
}

/* A line that wraps could not be rewritten. */
static int terminal_columns(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

void log_live(logger *log, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    if (log->rank != 0 || !log->terminal)
        return;
    va_start(args, format);
    make_line(line, format, args);
    va_end(args);
    flockfile(log->out);
    clear_live(log);
    fprintf(log->out, "%.*s", terminal_columns(log->out) - 1, line);
    write_out(log);
    log->live = true;
    funlockfile(log->out);
}

static void complain(logger *log, const char *kind, const char *format, va_list args)
{
    char line[LINE_BYTES], where[128] = "";
    make_line(line, format, args);
    if (log->size > 1)
        snprintf(where, sizeof where, "rank %d on %s: ", log->rank, log->host);
    flockfile(log->out);
    clear_live(log);
    write_out(log);
    fprintf(log->err, "teskd: %s%s%s\n", kind, where, line);
    fflush(log->err);
    funlockfile(log->out);
}

void log_warning(logger *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(log, "warning: ", format, args);
    va_end(args);
}

void log_error(logger *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(log, "", format, args);
    va_end(args);
}

void log_is_note(logger *log)
{
    log->is_note = true;
}

int log_close(logger *log)
{
    flockfile(log->out);
    clear_live(log);
    write_out(log);
    bool failed = log->error != 0 || ferror(log->out);
    funlockfile(log->out);
    if (!failed || log->is_note || log->error == EPIPE)
        return 0;
    return error_set(ERROR_FILE, "standard output: cannot be written%s%s", log->error ? ": " : "",
                     log->error ? strerror(log->error) : "");
}

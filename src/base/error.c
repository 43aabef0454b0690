/* Owns the per-thread message buffer. Invariant: always a terminated string that can be printed.
 * Threads: each has its own message; hand it over by copying it. */
#include "base/error.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[ERROR_BYTES];

/* Much of what a message quotes is from files. */
static void keep(char *at, const char *format, va_list args)
{
    char raw[ERROR_BYTES];
    vsnprintf(raw, sizeof raw, format, args);
    text_printable(raw, at, sizeof message - (size_t)(at - message));
}

int error_set(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    keep(message, format, args);
    va_end(args);
    return code;
}

int error_prefix(int code, const char *format, ...)
{
    char kept[ERROR_BYTES];
    memcpy(kept, message, sizeof kept);
    va_list args;
    va_start(args, format);
    keep(message, format, args);
    va_end(args);
    size_t used = strlen(message);
    snprintf(message + used, sizeof message - used, ": %.*s", (int)(ERROR_BYTES - used), kept);
    return code;
}

int error_suffix(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    keep(message + strlen(message), format, args);
    va_end(args);
    return code;
}

const char *error_message(void)
{
    return message;
}

error_copy error_save(void)
{
    error_copy copy;
    memcpy(copy.text, message, sizeof message);
    return copy;
}

void error_restore(const error_copy *copy)
{
    memcpy(message, copy->text, sizeof message);
}

void error_clear(void)
{
    message[0] = '\0';
}

const char *error_text(int code)
{
    switch (code) {
#define ERROR_CASE(name, value, text)                                                                                  \
    case name:                                                                                                         \
        return text;
        ERROR_CODES(ERROR_CASE)
#undef ERROR_CASE
    default:
        return "unknown error";
    }
}

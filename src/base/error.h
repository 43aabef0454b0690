/* Status codes and the message that goes with them.
 *
 * Library functions return 0 (or a count) on success and a negative code on failure. The text
 * is kept per thread, like errno: the only thread-local of the program. Only main exits.
 */
#ifndef TESKD_BASE_ERROR_H
#define TESKD_BASE_ERROR_H

#define ERROR_CODES(X)                                                                                                 \
    X(ERROR_USAGE, -1, "wrong usage")                                                                                  \
    X(ERROR_SETTINGS, -2, "wrong settings")                                                                            \
    X(ERROR_MEMORY, -3, "out of memory")                                                                               \
    X(ERROR_FILE, -4, "file error")                                                                                    \
    X(ERROR_DATA, -5, "bad data")                                                                                      \
    X(ERROR_SHAPE, -6, "shapes do not fit")                                                                            \
    X(ERROR_KERNEL, -7, "kernel failed")                                                                               \
    X(ERROR_COMM, -8, "communication failed")                                                                          \
    X(ERROR_MISMATCH, -9, "result differs from the expected")                                                          \
    X(ERROR_INTERNAL, -10, "internal error")                                                                           \
    X(ERROR_STOPPED, -11, "stopped by a signal")                                                                       \
    X(ERROR_DAMAGED, -12, "damaged file")

#define ERROR_ENUM(name, code, text) name = code,
enum { ERROR_CODES(ERROR_ENUM) };
#undef ERROR_ENUM

/* Keeps a formatted message for this thread and returns `code`. A later call replaces it. What a terminal should not
 * be sent (text_printable) is escaped in it, so that texts from files can be quoted as they are. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the message kept for this thread and returns `code`. */
int error_prefix(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts more text right after it and returns `code`. */
int error_suffix(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message of this thread's last error; never NULL, valid until the next error_set. */
const char *error_message(void);

/* A message set aside while other calls are made that may replace it, or to be handed to another thread. */
enum { ERROR_BYTES = 2048 };
typedef struct {
    char text[ERROR_BYTES];
} error_copy;
error_copy error_save(void);
void error_restore(const error_copy *copy);
void error_clear(void);

/* The general text of a code, "unknown error" when it is none of ours. */
const char *error_text(int code);

/* Returns the negative status of `call` to the caller's caller. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        int try_status_ = (call);                                                                                      \
        if (try_status_ < 0)                                                                                           \
            return try_status_;                                                                                        \
    } while (0)

/* Survives release builds: on a false condition returns `code` with a message. */
#define CHECK(condition, code, ...)                                                                                    \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return error_set((code), __VA_ARGS__);                                                                     \
    } while (0)

#endif

/* Owns the turn at HDF5 and the words of its failures. Invariant: between begin and end one thread is in HDF5, and HDF5
 * prints no error stack by itself. Any thread. */
#include "io/file/hdf5_report.h"

#include "base/error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { REASON = 256 };

static pthread_mutex_t turn = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

/* Under `turn`: how deep begin and end are nested, and how HDF5 prints otherwise. */
static int depth;
static H5E_auto2_t print;
static void *print_data;

void hdf5_begin(void)
{
    pthread_mutex_lock(&turn);
    if (depth++ > 0)
        return;
    H5Eget_auto2(H5E_DEFAULT, &print, &print_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void hdf5_end(void)
{
    if (--depth == 0)
        H5Eset_auto2(H5E_DEFAULT, print, print_data);
    pthread_mutex_unlock(&turn);
}

/* Keeps the innermost entry, which says what really happened; of several lines the first, without the time. */
static herr_t keep_reason(unsigned place, const H5E_error2_t *entry, void *reason)
{
    if (place == 0 && entry->desc) {
        snprintf(reason, REASON, "%.*s", (int)strcspn(entry->desc, "\n"), entry->desc);
        char *time = strstr(reason, ": time = ");
        if (time)
            *time = '\0';
    }
    return 0;
}

int h5_error(const char *path, const char *format, ...)
{
    char reason[REASON] = "HDF5 gives no reason", what[256];
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, reason);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return error_set(ERROR_FILE, "%s: cannot %s: %s", path, what, reason);
}

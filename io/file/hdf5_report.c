/* Owns the words of HDF5's failures. HDF5 is a serial library with global state: one thread at a time. */
#include "io/file/hdf5_report.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { REASON = 256 };

h5_silence h5_silence_begin(void)
{
    h5_silence silence = {NULL, NULL};
    H5Eget_auto2(H5E_DEFAULT, &silence.print, &silence.data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return silence;
}

void h5_silence_end(h5_silence silence)
{
    H5Eset_auto2(H5E_DEFAULT, silence.print, silence.data);
}

/* Keeps the innermost entry, which says what really happened; of several lines the first, without the time. */
static herr_t keep_reason(unsigned depth, const H5E_error2_t *entry, void *reason)
{
    if (depth == 0 && entry->desc) {
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

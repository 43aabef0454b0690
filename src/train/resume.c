/* Owns the way from a damaged checkpoint to the one before it. Invariant: the folder is changed only once a checkpoint
 * has been loaded. Main thread only. */
#include "train/resume.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Says which older file could be taken instead of the last.h5 that was asked for by name. */
static int offer_previous(int status, const char *path)
{
    char previous[SETTING_TEXT_BYTES + 32];
    const char *slash = strrchr(path, '/');
    snprintf(previous, sizeof previous, "%.*sprevious.h5", slash ? (int)(slash - path) + 1 : 0, path);
    bool is_last = strcmp(slash ? slash + 1 : path, "last.h5") == 0;
    bool helps = status == ERROR_FILE || status == ERROR_DAMAGED || status == ERROR_DATA;
    if (!helps || !is_last || access(previous, F_OK) != 0)
        return status;
    return error_suffix(status, "; the one before it is there: --resume %s", previous);
}

/* The agreed message names the rank, and so does a warning. */
static void warn(const session *e, const char *why, const char *next)
{
    char signature[160];
    snprintf(signature, sizeof signature, "rank %d on %s: ", e->info->rank, e->info->host);
    size_t signed_bytes = strncmp(why, signature, strlen(signature)) == 0 ? strlen(signature) : 0;
    log_warning(e->log, "%s; going on from %s", why + signed_bytes, next);
}

int resume_load(session *e, output_folder *output, progress *at)
{
    for (;;) {
        const char *path = output_folder_checkpoint(output);
        int status = checkpoint_load(e, path, at);
        if (status == 0)
            return output_folder_set_aside(output);
        if (status != ERROR_DAMAGED)
            return offer_previous(status, path);
        const error_copy why = error_save();
        int another = output_folder_fall_back(output);
        TRY(another);
        error_restore(&why);
        if (!another)
            return offer_previous(status, path);
        if (e->info->rank == 0)
            warn(e, why.text, output_folder_checkpoint(output));
    }
}

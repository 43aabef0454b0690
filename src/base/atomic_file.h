/* The one way in which the program writes a file: under another name beside it, renamed when it is whole. Readers see
 * the old file or the whole new one, also after a power cut.
 *
 * The other name cannot be foretold and is never followed as a link. Mode, owner and group of a file that is replaced
 * stay, as far as the system lets this process give them. What is no regular file (a terminal, a pipe, /dev/null) is
 * written in place. Links to regular files, folders and disks are refused.
 *
 * Errors are ERROR_FILE and name the path, unless said otherwise. Any thread, one at a time for each file.
 */
#ifndef TESKD_BASE_ATOMIC_FILE_H
#define TESKD_BASE_ATOMIC_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct atomic_file atomic_file;

/* Begins to write `path`; what stands there stays until the commit. Removes what killed processes of this user left
 * beside `path` more than an hour ago. */
int atomic_file_create(atomic_file **file, const char *path);

/* What has been written through the stream may have failed unnoticed until atomic_file_check or the commit. */
FILE *atomic_file_stream(const atomic_file *file);
int atomic_file_check(const atomic_file *file);
int atomic_file_write(atomic_file *file, const void *bytes, size_t count);

/* Makes the file durable, gives it its name and frees `*file`, which becomes NULL. After a failure, also one of an
 * earlier write, the old file is untouched; only when the folder cannot be synced last of all is the new one in place.
 */
int atomic_file_commit(atomic_file **file);

/* The same, and what stood at `path` until then stays as `name`, in place of what is there. A file system without hard
 * links renames it: for a moment there is no `path`. */
int atomic_file_commit_keeping(atomic_file **file, const char *name);

/* Removes what has been written. `*file` becomes NULL; it may be NULL already. */
void atomic_file_abandon(atomic_file **file);

/* Removes what killed processes of this user left beside `path` at least `seconds` ago; returns how many files. One
 * that a process still writes is left alone; where the file system has no locks the age alone tells. */
int atomic_file_sweep(const char *path, double seconds);

/* Makes a folder and those above it where they are missing. ERROR_FILE names the one that cannot be made. */
int make_folders(const char *path);

/* Are both names of one existing regular file? */
bool is_same_file(const char *a, const char *b);

#endif

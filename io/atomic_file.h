/* Replacing a file in one step: readers see the old file or the whole new one, also after a power cut. */
#ifndef TESKD_IO_ATOMIC_FILE_H
#define TESKD_IO_ATOMIC_FILE_H

/* The name to write to in place of `path`: "path.tmp.PID". The caller frees it; NULL (with a message) when out of
 * memory. */
char *atomic_file_temp(const char *path);

/* Makes the finished and closed file `temp` durable and gives it the name `path`.
 * On failure (ERROR_FILE) `temp` is gone and `path` is as before; only when the folder cannot be synced last of all is
 * the new file already in place. */
int atomic_file_replace(const char *temp, const char *path);

/* Makes a folder and those above it where they are missing. ERROR_FILE names the one that cannot be made. */
int make_folders(const char *path);

#endif

/* What kind of file system a path is on, for messages. Any thread. */
#ifndef TESKD_IO_DATA_FILE_SYSTEM_H
#define TESKD_IO_DATA_FILE_SYSTEM_H

/* "nfs", "lustre", "ext4"; "file system" where it is none of the usual ones. Asks the kernel, not the server. */
const char *file_system_name(const char *path);

#endif

/* Loaded before the C library, a file system without locks. */
#include <errno.h>

int flock(int file, int operation);

int flock(int file, int operation)
{
    (void)file;
    (void)operation;
    errno = ENOSYS;
    return -1;
}

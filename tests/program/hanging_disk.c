/* A disk that takes what is written but never says that it has it, as that of a dead file server. */
#include <unistd.h>

int fsync(int fd)
{
    (void)fd;
    for (;;)
        pause();
}

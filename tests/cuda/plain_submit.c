/* The plain device on host memory: work is done at once. */
#include "plain_device.h"

int plain_submit(void *stream, void (*work)(const void *args), const void *args, size_t bytes)
{
    (void)stream, (void)bytes;
    work(args);
    return 0;
}

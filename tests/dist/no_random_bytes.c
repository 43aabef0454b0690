/* Loaded before the C library: the one call of rank 0 that asks for so many random bytes fails, and with it the opening
 * of the control channel. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

enum { TOKEN_BYTES = 16 };

ssize_t getrandom(void *bytes, size_t count, unsigned flags)
{
    (void)flags;
    if (count == TOKEN_BYTES) {
        errno = EIO;
        return -1;
    }
    memset(bytes, 1, count);
    return (ssize_t)count;
}

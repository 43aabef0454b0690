/* A library that takes SIGHUP when it is loaded, as UCX does. */
#include <signal.h>

static void take(int number)
{
    (void)number;
}

__attribute__((constructor)) static void load(void)
{
    signal(SIGHUP, take);
}

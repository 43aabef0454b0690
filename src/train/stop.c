/* Owns the note that a signal leaves and the stack that it is taken on: the only globals of the program, as handlers
 * cannot be given anything else. */
#include "train/stop.h"

#include <signal.h>
#include <stddef.h>

enum { STACK_BYTES = 1 << 16 }; /* the registers alone take up to 12 KiB */

static volatile sig_atomic_t received;
static char handler_stack[STACK_BYTES];

static void take_note(int number)
{
    received = number;
}

/* A stack of its own for the handler: generated matrix kernels (oneDNN 2.6) let the stack pointer point into their
 * buffers, and a handler on it would overwrite the heap. */
void stop_listen(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR2};
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction action = {.sa_handler = take_note, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    if (sigaltstack(&stack, NULL) == 0)
        action.sa_flags |= SA_ONSTACK;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

int stop_signal(void)
{
    return received;
}

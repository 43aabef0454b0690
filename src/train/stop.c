/* Owns the note that a signal leaves: the one global of the program, as handlers cannot be given anything else. */
#include "train/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t received;

static void take_note(int number)
{
    received = number;
}

void stop_listen(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR2};
    struct sigaction action = {.sa_handler = take_note, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

int stop_signal(void)
{
    return received;
}

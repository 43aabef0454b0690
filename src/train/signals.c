/* Owns the note that a signal leaves: mutable globals, since a signal belongs to the process.
 * Invariant: the signals are blocked in every thread, and one thread waits for them. There is no handler: generated
 * matrix kernels (oneDNN 2.6) let the stack pointer point into their buffers, and a handler on such a stack would
 * overwrite the heap. Threads: signals_block comes before all others; the rest any. */
#include "train/signals.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    int number;
    const char *name;
} asking[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"},   {SIGHUP, "SIGHUP"},
              {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}, {SIGXCPU, "SIGXCPU"}};
enum { SIGNALS = sizeof asking / sizeof asking[0], TICK_MS = 50 };

/* mpirun kills a second after SIGTERM: the message has to be out before. */
static const double REPEAT_SECONDS = 1.0, UNHEEDED_SECONDS = 0.4;

static sigset_t listened;
static void (*end_unheeded)(void *context, const char *signal);
static void *end_context;
static atomic_int received;
/* Whether the main thread looks at the note, or this process is being ended because it does not: the first to say so.
 */
enum { UNHEEDED, HEEDED, ENDING };
static atomic_int heed;

static void end_as_usual(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
}

/* The next signal, or after a while 0 where somebody has to be watched. */
static int next_signal(bool watches)
{
    static const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    int number = watches ? sigtimedwait(&listened, NULL, &tick) : sigwaitinfo(&listened, NULL);
    return number > 0 ? number : 0;
}

static void *take_signals(void *unused)
{
    double first = 0;
    (void)unused;
    for (;;) {
        int unheeded = UNHEEDED;
        int number = next_signal(atomic_load(&received) && atomic_load(&heed) == UNHEEDED);
        double now = clock_seconds();
        if (!atomic_load(&received)) {
            first = now;
            atomic_store(&received, number);
        } else if ((number == SIGINT || number == SIGTERM) && now - first > REPEAT_SECONDS) {
            end_as_usual(number);
        }
        if (atomic_load(&received) && now - first > UNHEEDED_SECONDS &&
            atomic_compare_exchange_strong(&heed, &unheeded, ENDING))
            end_unheeded(end_context, signals_name(atomic_load(&received)));
    }
    return NULL;
}

static bool is_ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

/* Of nohup, and of a script's background command: who started this process so means it to go on. */
static bool is_left_ignored(int number)
{
    return (number == SIGHUP || number == SIGINT) && is_ignored(number);
}

/* A library may take SIGHUP when it is loaded, as UCX under Open MPI 5 does for a debugger. How the signal came to this
 * process is therefore noted before any library is initialised. */
static bool came_ignored;

static void note_hangup(void)
{
    came_ignored = is_ignored(SIGHUP);
}

__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(void) = note_hangup;

void signals_take_back(void)
{
    signal(SIGHUP, came_ignored ? SIG_IGN : SIG_DFL);
}

void signals_block(void)
{
    sigemptyset(&listened);
    for (int i = 0; i < SIGNALS; i++)
        if (!is_left_ignored(asking[i].number))
            sigaddset(&listened, asking[i].number);
    pthread_sigmask(SIG_BLOCK, &listened, NULL);
}

int signals_listen(void (*end)(void *context, const char *signal), void *context)
{
    pthread_t thread;
    end_unheeded = end;
    end_context = context;
    int error = thread_start(&thread, take_signals, NULL);
    CHECK(error == 0, ERROR_INTERNAL, "no thread to wait for signals: %s", strerror(error));
    pthread_detach(thread);
    return 0;
}

void signals_heed(void)
{
    int unheeded = UNHEEDED;
    if (!atomic_compare_exchange_strong(&heed, &unheeded, HEEDED) && unheeded == ENDING)
        for (;;) /* the other thread needs what the caller would free, and ends the process */
            pause();
}

int signals_received(void)
{
    return atomic_load(&received);
}

const char *signals_name(int number)
{
    for (int i = 0; i < SIGNALS; i++)
        if (asking[i].number == number)
            return asking[i].name;
    return "a signal";
}

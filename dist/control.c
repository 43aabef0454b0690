/* Owns the control channel's sockets and the watchdog thread.
 * Invariant: `failure` and `peer_code` are written once, by the watchdog, before `failed` becomes true, and never
 * change after that.
 * Threads: after control_open only the watchdog touches links and sockets. The main thread asks it to leave by writing
 * `last_words`, then `leaving`, then the eventfd; `mutex` guards what else they share. The watchdog writes to stderr
 * where a rank died without a word or hangs. The launcher may kill this rank before its main thread, deep in a
 * computation or held up inside MPI, can report it. It lets the process be ended in one case, too: where the main
 * thread cannot learn of a failure, since it waits for a GPU that waits for the failed rank. */
#include "control.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory_kills.h"
#include "base/thread.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_BYTES = 2048, AWAIT_STEP_US = 2000, DRAIN_STEP_MS = 50 };

static const double PAUSE_SECONDS = 4.0, DRAIN_SECONDS = 1.0;

/* How often a rank looks whether its standing has changed, and tells. Rank 0 hears of it from all: it takes 5,000
 * frames per second in all, whatever the number of ranks. */
static const double LEAST_TICK_SECONDS = 0.02, TICK_SECONDS_PER_RANK = 0.0002;

/* FRAME_DEATH is the failure of a process that is gone. */
typedef enum { FRAME_HEARTBEAT = 1, FRAME_GOODBYE, FRAME_FAILURE, FRAME_DEATH } frame_kind;

typedef struct {
    uint32_t kind;
    int32_t rank;   /* of a failure: who failed */
    int32_t code;   /* of a failure: with what (base/error.h) */
    uint32_t bytes; /* that follow: a rank_standing with FRAME_HEARTBEAT, a text with the failures */
} frame_header;

typedef struct {
    frame_header header;
    char text[TEXT_BYTES];
} frame;

typedef struct {
    int fd; /* -1: no connection, or none any more */
    bool goodbye;
    double heard;
    watched_rank stands;
    size_t have; /* bytes of `inbox` */
    frame inbox;
} control_link;

struct control {
    int rank, size, n_links; /* link[r] leads to rank r */
    const rank_place *place;
    pthread_t thread;
    atomic_bool running; /* whoever takes it away ends the watchdog */
    int wake;
    double tick;

    pthread_mutex_t mutex; /* guards the next three */
    comm_limits limits;
    rank_standing standing; /* of this rank's main thread */
    phase_limits phases;

    /* The watchdog's: rank 0 sees who hangs. */
    hang_watch hangs;
    watched_rank *ranks; /* of all, for one look */
    watched_rank mine;
    uint64_t told_changes; /* `changes` of the standing that the peers have */
    double told_at, counted_at;
    uint64_t memory_kills[2]; /* the host's, at the last heartbeat but one and at the last */

    atomic_ullong looks; /* of the main thread */
    atomic_bool failed;
    char failure[TEXT_BYTES];
    int peer_code;
    double failed_at; /* watchdog's */

    atomic_bool leaving;
    int farewell; /* 0: a goodbye; else the code of a failure */
    char last_words[TEXT_BYTES];

    struct pollfd *polled; /* wake, then one a link */
    control_link link[];
};

static void link_close(control_link *link)
{
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

/* Frames are few and small, so a full socket buffer means a peer that has not read for hours: what does not fit is
 * dropped. */
static void link_send(control_link *link, frame_header header, const void *payload)
{
    if (link->fd < 0)
        return;
    frame out = {.header = header};
    memcpy(out.text, payload, header.bytes);
    size_t bytes = sizeof out.header + header.bytes;
    ssize_t sent = send(link->fd, &out, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0 && (size_t)sent < bytes)
        shutdown(link->fd, SHUT_RDWR);
}

static void send_all(control *ctl, frame_header header, const void *payload)
{
    for (int i = 0; i < ctl->n_links; i++)
        link_send(&ctl->link[i], header, payload);
}

static frame_header failure_header(frame_kind kind, int rank, int code, const char *text)
{
    return (frame_header){.kind = kind, .rank = rank, .code = code, .bytes = (uint32_t)strnlen(text, TEXT_BYTES - 1)};
}

/* The watchdog's own view: one failure is enough, and nothing that happens while leaving is news. */
static bool takes_news(const control *ctl)
{
    return !atomic_load_explicit(&ctl->failed, memory_order_relaxed) && !atomic_load(&ctl->leaving);
}

/* Keeps the first failure, and on rank 0 passes it on. */
static void note_failure(control *ctl, frame_kind kind, int rank, int code, const char *text)
{
    if (!takes_news(ctl))
        return;
    snprintf(ctl->failure, sizeof ctl->failure, "%s", text);
    ctl->peer_code = code;
    ctl->failed_at = clock_seconds();
    atomic_store_explicit(&ctl->failed, true, memory_order_release);
    if (ctl->rank == 0)
        send_all(ctl, failure_header(kind, rank, code, ctl->failure), ctl->failure);
}

/* Exactly one survivor reports a rank that died without a word. For ranks other than 0 that is rank 0. For rank 0 it is
 * rank 1. Silence, unlike a closed connection, can be a host that went down with rank 1 on it: then it is the lowest
 * rank of another host, where there is one. */
static bool is_reporter(const control *ctl, bool silent)
{
    if (ctl->rank == 0)
        return true;
    int reporter = 1;
    for (int r = 1; silent && r < ctl->size; r++)
        if (ctl->place[r].host_leader != ctl->place[0].host_leader) {
            reporter = r;
            break;
        }
    return ctl->rank == reporter;
}

static comm_limits limits_of(control *ctl)
{
    pthread_mutex_lock(&ctl->mutex);
    const comm_limits limits = ctl->limits;
    pthread_mutex_unlock(&ctl->mutex);
    return limits;
}

static rank_standing own_standing(control *ctl)
{
    pthread_mutex_lock(&ctl->mutex);
    rank_standing standing = ctl->standing;
    pthread_mutex_unlock(&ctl->mutex);
    standing.looks = atomic_load_explicit(&ctl->looks, memory_order_relaxed);
    return standing;
}

static void print_line(const char *text)
{
    char line[TEXT_BYTES + 64];
    int bytes = snprintf(line, sizeof line, "%s: %s\n", program_invocation_short_name, text);
    if (write(STDERR_FILENO, line, (size_t)bytes) < 0) {
        /* nobody reads stderr: the peers and the main thread have the message all the same */
    }
}

/* The lowest surviving rank on the host of a dead one: it can ask that host's kernel. */
static bool is_witness(const control *ctl, int dead)
{
    int witness = ctl->place[dead].host_leader;
    for (int r = witness == dead ? dead + 1 : witness; r < ctl->size; r++)
        if (r != dead && ctl->place[r].host_leader == ctl->place[dead].host_leader)
            return r == ctl->rank;
    return false;
}

static void note_memory_kill(const control *ctl, int dead)
{
    char text[TEXT_BYTES];
    if (!is_witness(ctl, dead) || memory_kills_count("") <= ctl->memory_kills[0])
        return;
    snprintf(text, sizeof text,
             "%s: the kernel has just ended a process for want of memory: rank %d needed more than the host or its "
             "control group has (fewer data.threads, a smaller train.batch or a higher limit of the job help)",
             ctl->place[dead].host, dead);
    print_line(text);
}

static void death_text(control *ctl, int rank, bool silent, char text[TEXT_BYTES])
{
    char where[STANDING_TEXT_BYTES];
    const char *host = ctl->place[rank].host;
    standing_text(&ctl->link[rank].stands.standing, where);
    if (silent)
        snprintf(text, TEXT_BYTES, "rank %d on %s has not been heard of for %g s%s", rank, host,
                 limits_of(ctl).silence_seconds, where);
    else
        snprintf(text, TEXT_BYTES, "rank %d on %s ended without a word (its connection closed)%s", rank, host, where);
}

/* A silent rank may wake up later: it finds the verdict waiting, and ends as quietly as the others. */
static void note_death(control *ctl, int rank, bool silent)
{
    control_link *link = &ctl->link[rank];
    char text[TEXT_BYTES];
    death_text(ctl, rank, silent, text);
    bool is_news = takes_news(ctl) && !link->goodbye;
    if (is_news && silent)
        link_send(link, failure_header(FRAME_FAILURE, rank, ERROR_COMM, text), text);
    link_close(link);
    if (!is_news)
        return;
    note_failure(ctl, silent ? FRAME_FAILURE : FRAME_DEATH, rank, ERROR_COMM, text);
    if (is_reporter(ctl, silent))
        print_line(text);
    if (!silent)
        note_memory_kill(ctl, rank);
}

/* Returns false when the connection has nothing more to say. */
static bool take_frame(control *ctl, control_link *link)
{
    const frame *in = &link->inbox;
    rank_standing standing;
    link->have = 0;
    switch (in->header.kind) {
    case FRAME_HEARTBEAT:
        memcpy(&standing, in->text, sizeof standing);
        hang_watch_note(&ctl->hangs, &link->stands, &standing, link->heard);
        return true;
    case FRAME_GOODBYE:
        link->goodbye = true;
        return true;
    case FRAME_FAILURE:
    case FRAME_DEATH:
        note_failure(ctl, in->header.kind, in->header.rank, in->header.code, in->text);
        if (in->header.kind == FRAME_DEATH && in->header.rank >= 0 && in->header.rank < ctl->size)
            note_memory_kill(ctl, in->header.rank);
        link_close(link); /* tells the sender that it was heard */
        return false;
    default:
        return true;
    }
}

static bool is_frame(const frame_header *header)
{
    return header->kind == FRAME_HEARTBEAT ? header->bytes == sizeof(rank_standing) : header->bytes < TEXT_BYTES;
}

static void link_read(control *ctl, int rank)
{
    control_link *link = &ctl->link[rank];
    for (;;) {
        size_t want = sizeof link->inbox.header;
        if (link->have >= want)
            want += link->inbox.header.bytes;
        ssize_t got = recv(link->fd, (char *)&link->inbox + link->have, want - link->have, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            note_death(ctl, rank, false);
            return;
        }
        link->heard = clock_seconds();
        link->have += (size_t)got;
        if (link->have < sizeof link->inbox.header)
            continue;
        if (!is_frame(&link->inbox.header)) {
            note_death(ctl, rank, false);
            return;
        }
        if (link->have < sizeof link->inbox.header + link->inbox.header.bytes)
            continue;
        link->inbox.text[link->inbox.header.bytes] = '\0';
        if (!take_frame(ctl, link))
            return;
    }
}

/* Waits for news, and takes all of it. */
static void listen_to_links(control *ctl, int timeout_ms)
{
    ctl->polled[0] = (struct pollfd){.fd = atomic_load(&ctl->leaving) ? -1 : ctl->wake, .events = POLLIN};
    for (int i = 0; i < ctl->n_links; i++)
        ctl->polled[i + 1] = (struct pollfd){.fd = ctl->link[i].fd, .events = POLLIN};
    if (poll(ctl->polled, (nfds_t)ctl->n_links + 1, timeout_ms) <= 0)
        return;
    for (int i = 0; i < ctl->n_links; i++)
        if (ctl->polled[i + 1].revents && ctl->link[i].fd >= 0)
            link_read(ctl, i);
}

/* The rank that would report it decides first: once another one has ended, the launcher may wake the silent one. */
static void check_silence(control *ctl)
{
    double now = clock_seconds(),
           limit = limits_of(ctl).silence_seconds + (is_reporter(ctl, true) ? 0.0 : 2.0 * standing_heartbeat);
    for (int i = 0; i < ctl->n_links; i++)
        if (ctl->link[i].fd >= 0 && !ctl->link[i].goodbye && now - ctl->link[i].heard > limit)
            note_death(ctl, i, true);
}

/* A rank whose watchdog lives may hang all the same, this one too. Rank 0 sees them all. */
static void check_progress(control *ctl)
{
    char text[TEXT_BYTES], where[STANDING_TEXT_BYTES];
    const char *setting;
    double limit, now = clock_seconds();
    if (ctl->rank != 0 || !takes_news(ctl))
        return;
    const rank_standing mine = own_standing(ctl);
    pthread_mutex_lock(&ctl->mutex);
    ctl->hangs.limits = ctl->phases;
    pthread_mutex_unlock(&ctl->mutex);
    hang_watch_note(&ctl->hangs, &ctl->mine, &mine, now);
    for (int r = 0; r < ctl->size; r++)
        ctl->ranks[r] = r == 0 ? ctl->mine : ctl->link[r].stands;
    const int rank = hang_watch_find(&ctl->hangs, ctl->ranks, ctl->size, now, &limit, &setting);
    if (rank < 0)
        return;
    standing_text(&ctl->ranks[rank].standing, where);
    snprintf(text, sizeof text, "rank %d on %s hangs: no progress for %.3g s%s; a longer %s allows for more", rank,
             ctl->place[rank].host, limit, where, setting);
    note_failure(ctl, FRAME_FAILURE, rank, ERROR_COMM, text);
    print_line(text);
}

/* Where this process itself was stopped (a suspended job, a debugger), the peers may have been, too. */
static void forgive_own_pause(control *ctl, double seconds)
{
    if (seconds <= PAUSE_SECONDS)
        return;
    for (int i = 0; i < ctl->n_links; i++) {
        ctl->link[i].heard += seconds;
        ctl->link[i].stands.since += seconds;
        ctl->link[i].stands.looked += seconds;
    }
    ctl->mine.since += seconds;
    ctl->mine.looked += seconds;
}

/* The failure has been told by then: the rank it came from, or the one that reports a death, has spoken. */
static void check_main_thread(control *ctl)
{
    const comm_limits limits = limits_of(ctl);
    bool late = atomic_load_explicit(&ctl->failed, memory_order_relaxed) &&
                clock_seconds() > ctl->failed_at + limits.grace_seconds;
    if (late && !atomic_load(&ctl->leaving) && limits.end_process)
        limits.end_process(NULL);
}

/* How this rank stands, to all it is linked with: news at once, and a sign of life every now and then. */
static void tell_standing(control *ctl, double now)
{
    const rank_standing mine = own_standing(ctl);
    if (mine.changes == ctl->told_changes && now < ctl->told_at + standing_heartbeat)
        return;
    send_all(ctl, (frame_header){.kind = FRAME_HEARTBEAT, .rank = ctl->rank, .bytes = sizeof mine}, &mine);
    ctl->told_changes = mine.changes;
    ctl->told_at = now;
}

static void count_memory_kills(control *ctl, double now)
{
    if (now < ctl->counted_at + standing_heartbeat)
        return;
    ctl->memory_kills[0] = ctl->memory_kills[1];
    ctl->memory_kills[1] = memory_kills_count("");
    ctl->counted_at = now;
}

static bool any_open(const control *ctl)
{
    for (int i = 0; i < ctl->n_links; i++)
        if (ctl->link[i].fd >= 0)
            return true;
    return false;
}

/* Tells the peers, then waits until they have closed their ends: a process that ends sooner may take unread words with
 * it. */
static void say_last_words(control *ctl)
{
    if (!atomic_load_explicit(&ctl->failed, memory_order_relaxed))
        send_all(ctl, failure_header(FRAME_FAILURE, ctl->rank, ctl->farewell, ctl->last_words), ctl->last_words);
    for (int i = 0; i < ctl->n_links; i++)
        if (ctl->link[i].fd >= 0)
            shutdown(ctl->link[i].fd, SHUT_WR);
    double deadline = clock_seconds() + DRAIN_SECONDS;
    while (any_open(ctl) && clock_seconds() < deadline)
        listen_to_links(ctl, DRAIN_STEP_MS);
}

static void *watch(void *argument)
{
    control *ctl = argument;
    double next_tick = clock_seconds();
    ctl->memory_kills[1] = memory_kills_count("");
    while (!atomic_load(&ctl->leaving)) {
        double now = clock_seconds();
        if (now >= next_tick) {
            tell_standing(ctl, now);
            count_memory_kills(ctl, now);
            next_tick = now + ctl->tick;
        }
        listen_to_links(ctl, 1 + (int)((next_tick - now) * 1000.0));
        forgive_own_pause(ctl, clock_seconds() - now);
        check_silence(ctl);
        check_progress(ctl);
        check_main_thread(ctl);
    }
    if (ctl->farewell < 0)
        say_last_words(ctl);
    else
        send_all(ctl, (frame_header){.kind = FRAME_GOODBYE, .rank = ctl->rank}, "");
    return NULL;
}

static int start_watchdog(control *ctl)
{
    int error = thread_start(&ctl->thread, watch, ctl);
    if (error)
        return error_set(ERROR_COMM, "control channel: no watchdog thread: %s", strerror(error));
    ctl->running = true;
    return 0;
}

int control_open(control **out, int rank, int size, const rank_place *place, const int *fd, const comm_limits *limits)
{
    int n_links = rank == 0 ? size : 1;
    control *ctl = calloc(1, sizeof *ctl + (size_t)n_links * sizeof(control_link));
    struct pollfd *polled = calloc((size_t)n_links + 1, sizeof *polled);
    watched_rank *ranks = calloc((size_t)size, sizeof *ranks);
    *out = NULL;
    if (!ctl || !polled || !ranks) {
        for (int i = 0; i < n_links; i++)
            if (fd[i] >= 0)
                close(fd[i]);
        free(ranks);
        free(polled);
        free(ctl);
        return error_set(ERROR_MEMORY, "control channel: out of memory for %d ranks", size);
    }
    ctl->rank = rank;
    ctl->size = size;
    ctl->n_links = n_links;
    ctl->place = place;
    ctl->limits = *limits;
    ctl->polled = polled;
    ctl->ranks = ranks;
    ctl->tick = fmax(LEAST_TICK_SECONDS, TICK_SECONDS_PER_RANK * size);
    pthread_mutex_init(&ctl->mutex, NULL);
    double now = clock_seconds();
    ctl->mine.since = ctl->mine.looked = now;
    for (int i = 0; i < n_links; i++) {
        ctl->link[i].fd = fd[i];
        ctl->link[i].heard = ctl->link[i].stands.since = ctl->link[i].stands.looked = now;
    }
    ctl->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int status =
        ctl->wake < 0 ? error_set(ERROR_COMM, "control channel: no eventfd: %s", strerror(errno)) : start_watchdog(ctl);
    if (status < 0) {
        control_close(ctl);
        return status;
    }
    *out = ctl;
    return 0;
}

void control_stand(control *ctl, const rank_standing *standing)
{
    pthread_mutex_lock(&ctl->mutex);
    ctl->standing = *standing;
    pthread_mutex_unlock(&ctl->mutex);
}

void control_watch(control *ctl, const phase_limits *phases, double silence_seconds)
{
    pthread_mutex_lock(&ctl->mutex);
    ctl->phases = *phases;
    ctl->limits.silence_seconds = silence_seconds;
    pthread_mutex_unlock(&ctl->mutex);
}

bool control_peer_failed(const control *ctl)
{
    return atomic_load_explicit(&ctl->failed, memory_order_acquire);
}

int control_peer_code(const control *ctl)
{
    return control_peer_failed(ctl) ? ctl->peer_code : 0;
}

int control_check(control *ctl)
{
    atomic_fetch_add_explicit(&ctl->looks, 1, memory_order_relaxed);
    return control_peer_failed(ctl) ? error_set(ERROR_COMM, "%s", ctl->failure) : 0;
}

int control_await_failure(control *ctl, int ms)
{
    double deadline = clock_seconds() + ms / 1000.0;
    while (!control_peer_failed(ctl) && clock_seconds() < deadline)
        clock_sleep_us(AWAIT_STEP_US);
    return control_check(ctl);
}

void control_leave(control *ctl, int code, const char *failure)
{
    if (!atomic_exchange(&ctl->running, false))
        return;
    snprintf(ctl->last_words, sizeof ctl->last_words, "%s", failure);
    ctl->farewell = code;
    atomic_store(&ctl->leaving, true);
    uint64_t one = 1;
    if (write(ctl->wake, &one, sizeof one) < 0) {
        /* cannot fail on a fresh eventfd; the watchdog would look again at its next heartbeat */
    }
    pthread_join(ctl->thread, NULL);
}

void control_close(control *ctl)
{
    if (!ctl)
        return;
    control_leave(ctl, 0, "");
    for (int i = 0; i < ctl->n_links; i++)
        link_close(&ctl->link[i]);
    if (ctl->wake >= 0)
        close(ctl->wake);
    pthread_mutex_destroy(&ctl->mutex);
    free(ctl->ranks);
    free(ctl->polled);
    free(ctl);
}

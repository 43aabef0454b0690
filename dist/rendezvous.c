/* Owns sockets only until they are handed over. Invariant: a socket that is handed over is non-blocking, closed on
 * exec, and its other end has shown the invitation's token. Threads: main thread, while the communicator opens.
 *
 * A rank connects and greets, rank 0 greets back, and the rank greets once more. Rank 0 counts only who has heard the
 * answer: one that gave up waiting for it comes again. Nobody waits for one connection, since a stranger at either end
 * may say nothing, or too little. Rank 0 listens to all candidates together, and a rank tries all addresses of rank 0
 * together. */
#include "rendezvous.h"

#include "base/clock.h"
#include "base/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPEN_SECONDS = 30, CANDIDATES = 256, TRIES = RENDEZVOUS_ADDRESSES + 1, RETRY_MS = 100 };

typedef struct {
    uint8_t token[RENDEZVOUS_TOKEN_BYTES];
    uint32_t rank; /* of the sender, in network byte order */
} greeting;

/* A connection that is not known to be a rank's yet. */
typedef struct {
    int fd;   /* -1: none */
    int rank; /* rank 0's: who greeted; 0 before */
    size_t have;
    greeting inbox;
} candidate;

int rendezvous_listen(rendezvous_invite *invite)
{
    memset(invite, 0, sizeof *invite);
    if (getrandom(invite->token, sizeof invite->token, 0) != (ssize_t)sizeof invite->token)
        return error_set(ERROR_COMM, "control channel: no random bytes: %s", strerror(errno));
    invite->n_addresses = addresses_of_host(invite->address, RENDEZVOUS_ADDRESSES);
    const int fd = address_listen(&invite->port);
    return fd >= 0 ? fd : error_set(ERROR_COMM, "control channel: cannot listen on a TCP port: %s", strerror(errno));
}

static bool send_greeting(int fd, const rendezvous_invite *invite, int rank)
{
    greeting hello = {.rank = htonl((uint32_t)rank)};
    memcpy(hello.token, invite->token, sizeof hello.token);
    return send(fd, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello;
}

static void turn_away(candidate *n)
{
    if (n->fd >= 0)
        close(n->fd);
    *n = (candidate){.fd = -1};
}

/* Takes what has arrived. The rank of a whole greeting with the right token; -1 while it is not whole; -2 for anything
 * else, with errno set. */
static int receive_greeting(candidate *n, const rendezvous_invite *invite)
{
    ssize_t got = recv(n->fd, (char *)&n->inbox + n->have, sizeof n->inbox - n->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return -1;
    if (got <= 0) {
        errno = got < 0 ? errno : ECONNRESET;
        return -2;
    }
    n->have += (size_t)got;
    errno = EPROTO;
    if (memcmp(n->inbox.token, invite->token, n->have < sizeof invite->token ? n->have : sizeof invite->token) != 0)
        return -2;
    if (n->have < sizeof n->inbox)
        return -1;
    n->have = 0;
    return (int)(ntohl(n->inbox.rank) & INT32_MAX);
}

/* Small frames must leave at once: a failure's news is one of them. */
static void send_at_once(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int missing_ranks(const rank_place *place, int size, const int *fd)
{
    char list[512] = "";
    size_t used = 0;
    int missing = 0;
    bool is_far = false;
    for (int r = 1; r < size; r++) {
        if (fd[r] >= 0)
            continue;
        missing++;
        is_far = is_far || place[r].host_leader != place[0].host_leader;
        if (used < sizeof list - 1) {
            int n = snprintf(list + used, sizeof list - used, "%s%d on %s", used ? ", " : "", r, place[r].host);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return error_set(ERROR_COMM, "control channel: %d of %d ranks did not reach rank 0 on %s within %d s (rank %s); %s",
                     missing, size, place[0].host, OPEN_SECONDS, list,
                     is_far ? "is TCP between the hosts blocked?" : "they hang, or have ended");
}

typedef struct {
    const rendezvous_invite *invite;
    int listener, size, joined; /* joined: ranks, with rank 0 */
    int *fd;
    candidate candidates[CANDIDATES]; /* the oldest first */
    struct pollfd polled[CANDIDATES + 1];
} reception;

/* Where there are too many, the one that has been there longest goes: a rank would have been done, or comes again. */
static void let_in(reception *r)
{
    int one = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), free_place = 0;
    bool no_file = one < 0 && (errno == EMFILE || errno == ENFILE);
    while (free_place < CANDIDATES && r->candidates[free_place].fd >= 0)
        free_place++;
    if (free_place == CANDIDATES || (no_file && free_place > 0)) {
        turn_away(&r->candidates[0]);
        memmove(&r->candidates[0], &r->candidates[1], sizeof r->candidates - sizeof r->candidates[0]);
        r->candidates[CANDIDATES - 1].fd = -1;
        free_place--;
    }
    if (one >= 0)
        r->candidates[free_place] = (candidate){.fd = one};
}

/* A rank that comes twice gave up on an earlier connection: its newest counts. */
static void join(reception *r, candidate *n)
{
    if (r->fd[n->rank] >= 0)
        close(r->fd[n->rank]);
    else
        r->joined++;
    send_at_once(n->fd);
    r->fd[n->rank] = n->fd;
    n->fd = -1;
}

static void listen_to(reception *r, candidate *n)
{
    int rank = receive_greeting(n, r->invite);
    if (rank == -1)
        return;
    bool is_rank = rank > 0 && rank < r->size && (n->rank == 0 || n->rank == rank);
    if (is_rank && n->rank == rank) {
        join(r, n);
        return;
    }
    n->rank = rank;
    if (!is_rank || !send_greeting(n->fd, r->invite, 0))
        turn_away(n);
}

static void close_gaps(reception *r)
{
    int kept = 0;
    for (int i = 0; i < CANDIDATES; i++)
        if (r->candidates[i].fd >= 0)
            r->candidates[kept++] = r->candidates[i];
    while (kept < CANDIDATES)
        r->candidates[kept++] = (candidate){.fd = -1};
}

static void receive(reception *r, int timeout_ms)
{
    r->polled[0] = (struct pollfd){.fd = r->listener, .events = POLLIN};
    for (int i = 0; i < CANDIDATES; i++)
        r->polled[i + 1] = (struct pollfd){.fd = r->candidates[i].fd, .events = POLLIN};
    if (poll(r->polled, CANDIDATES + 1, timeout_ms) <= 0)
        return;
    for (int i = 0; i < CANDIDATES; i++)
        if (r->polled[i + 1].revents)
            listen_to(r, &r->candidates[i]);
    close_gaps(r);
    if (r->polled[0].revents)
        let_in(r);
}

int rendezvous_accept(int listener, const rendezvous_invite *invite, const rank_place *place, int size, int *fd)
{
    reception r = {.invite = invite, .listener = listener, .size = size, .joined = 1, .fd = fd};
    for (int i = 0; i < CANDIDATES; i++)
        r.candidates[i].fd = -1;
    for (int rank = 0; rank < size; rank++)
        fd[rank] = -1;
    double deadline = clock_seconds() + OPEN_SECONDS, left = OPEN_SECONDS;
    while (r.joined < size && left > 0) {
        receive(&r, 1 + (int)(left * 1000.0));
        left = deadline - clock_seconds();
    }
    for (int i = 0; i < CANDIDATES; i++)
        turn_away(&r.candidates[i]);
    return r.joined < size ? missing_ranks(place, size, fd) : 0;
}

/* One address of rank 0's. */
typedef struct {
    candidate line; /* whose other end may be rank 0 */
    host_address to;
    bool greeted; /* connected, and said so */
    double again; /* where there is no connection: when to make the next */
} attempt;

static void fail_attempt(attempt *a, int *error)
{
    *error = errno;
    turn_away(&a->line);
    a->greeted = false;
    a->again = clock_seconds() + RETRY_MS / 1000.0;
}

static void start_attempt(attempt *a, uint16_t port, int *error)
{
    a->line.fd = address_connect(&a->to, port);
    if (a->line.fd < 0)
        fail_attempt(a, error);
}

static bool is_connected(const attempt *a)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(a->line.fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
        return false;
    errno = error;
    return error == 0;
}

/* Whether rank 0 has answered, and been told that it was heard. */
static bool advance_attempt(attempt *a, const rendezvous_invite *invite, int rank, int *error)
{
    if (!a->greeted) {
        a->greeted = is_connected(a) && send_greeting(a->line.fd, invite, rank);
        if (!a->greeted)
            fail_attempt(a, error);
        return false;
    }
    int answer = receive_greeting(&a->line, invite);
    if (answer == 0 && send_greeting(a->line.fd, invite, rank))
        return true;
    if (answer != -1)
        fail_attempt(a, error);
    return false;
}

/* The socket of the first answer, or -1. */
static int try_all(attempt *attempts, int n, const rendezvous_invite *invite, int rank, int *error)
{
    struct pollfd polled[TRIES];
    for (int i = 0; i < n; i++) {
        attempt *a = &attempts[i];
        if (a->line.fd < 0 && clock_seconds() >= a->again)
            start_attempt(a, invite->port, error);
        polled[i] = (struct pollfd){.fd = a->line.fd, .events = a->greeted ? POLLIN : POLLOUT};
    }
    if (poll(polled, (nfds_t)n, RETRY_MS) <= 0)
        return -1;
    for (int i = 0; i < n; i++)
        if (polled[i].revents && advance_attempt(&attempts[i], invite, rank, error)) {
            int fd = attempts[i].line.fd;
            attempts[i].line.fd = -1;
            return fd;
        }
    return -1;
}

static int unreachable(const attempt *attempts, int n, uint16_t port, int error)
{
    char list[TRIES * (ADDRESS_TEXT_BYTES + 2)] = "none";
    size_t used = 0;
    for (int i = 0; i < n && used < sizeof list; i++) {
        char text[ADDRESS_TEXT_BYTES];
        address_text(&attempts[i].to, text);
        int wrote = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", text);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return error_set(ERROR_COMM, "control channel: cannot reach rank 0 at port %u of any of its addresses (%s): %s",
                     (unsigned)port, list, error == EPROTO ? "another program answers there" : strerror(error));
}

int rendezvous_connect(const rendezvous_invite *invite, int rank, bool same_host)
{
    attempt attempts[TRIES];
    int n = 0, error = ETIMEDOUT, fd = -1;
    if (same_host)
        attempts[n++] = (attempt){.line.fd = -1, .to = address_from_v4(htonl(INADDR_LOOPBACK))};
    for (uint32_t i = 0; i < invite->n_addresses; i++)
        attempts[n++] = (attempt){.line.fd = -1, .to = invite->address[i]};
    double deadline = clock_seconds() + OPEN_SECONDS;
    while (n > 0 && fd < 0 && clock_seconds() < deadline)
        fd = try_all(attempts, n, invite, rank, &error);
    for (int i = 0; i < n; i++)
        turn_away(&attempts[i].line);
    if (fd < 0)
        return unreachable(attempts, n, invite->port, n > 0 ? error : EADDRNOTAVAIL);
    send_at_once(fd);
    return fd;
}

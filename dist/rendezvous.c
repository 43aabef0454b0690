/* Owns sockets only until they are handed over. Invariant: a socket that is handed over is non-blocking, closed on
 * exec, and its other end has shown the invitation's token. Threads: main thread, while the communicator opens. */
#include "rendezvous.h"

#include "base/error.h"
#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPEN_SECONDS = 30, CONNECT_MS = 3000, HELLO_MS = 2000, WELCOME_MS = 6000, RETRY_US = 100000 };

typedef struct {
    uint8_t token[RENDEZVOUS_TOKEN_BYTES];
    uint32_t rank; /* of the sender, in network byte order */
} greeting;

static void list_addresses(rendezvous_invite *invite)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *i = all; i && invite->n_addresses < RENDEZVOUS_ADDRESSES; i = i->ifa_next) {
        bool usable = i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP) &&
                      !(i->ifa_flags & IFF_LOOPBACK);
        if (!usable)
            continue;
        struct sockaddr_in address;
        memcpy(&address, i->ifa_addr, sizeof address);
        invite->address[invite->n_addresses++] = address.sin_addr.s_addr;
    }
    freeifaddrs(all);
}

int rendezvous_listen(rendezvous_invite *invite)
{
    memset(invite, 0, sizeof *invite);
    if (getrandom(invite->token, sizeof invite->token, 0) != (ssize_t)sizeof invite->token)
        return error_set(ERROR_COMM, "control channel: no random bytes: %s", strerror(errno));
    list_addresses(invite);

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t bytes = sizeof any;
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, bytes) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&any, &bytes) != 0) {
        error_set(ERROR_COMM, "control channel: cannot listen on a TCP port: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return ERROR_COMM;
    }
    invite->port = ntohs(any.sin_port);
    return fd;
}

static bool send_greeting(int fd, const rendezvous_invite *invite, int rank)
{
    greeting hello = {.rank = htonl((uint32_t)rank)};
    memcpy(hello.token, invite->token, sizeof hello.token);
    return send(fd, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello;
}

/* The rank of a greeting with the right token, -1 when none has come in time. */
static int receive_greeting(int fd, const rendezvous_invite *invite, int within_ms)
{
    greeting hello;
    size_t have = 0;
    double deadline = clock_seconds() + within_ms / 1000.0;
    while (have < sizeof hello) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        int left_ms = (int)((deadline - clock_seconds()) * 1000.0);
        if (left_ms <= 0 || poll(&waiting, 1, left_ms) <= 0)
            return -1;
        ssize_t got = recv(fd, (char *)&hello + have, sizeof hello - have, 0);
        if (got <= 0)
            return -1;
        have += (size_t)got;
    }
    if (memcmp(hello.token, invite->token, sizeof hello.token) != 0)
        return -1;
    return (int)ntohl(hello.rank);
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
    for (int r = 1; r < size; r++) {
        if (fd[r] >= 0)
            continue;
        missing++;
        if (used < sizeof list - 1) {
            int n = snprintf(list + used, sizeof list - used, "%s%d on %s", used ? ", " : "", r, place[r].host);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return error_set(ERROR_COMM,
                     "control channel: %d of %d ranks did not reach rank 0 on %s within %d s (rank %s); is TCP between "
                     "the hosts blocked?",
                     missing, size, place[0].host, OPEN_SECONDS, list);
}

int rendezvous_accept(int listener, const rendezvous_invite *invite, const rank_place *place, int size, int *fd)
{
    for (int r = 0; r < size; r++)
        fd[r] = -1;
    double deadline = clock_seconds() + OPEN_SECONDS;
    for (int joined = 1; joined < size;) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        int left_ms = (int)((deadline - clock_seconds()) * 1000.0);
        if (left_ms <= 0)
            return missing_ranks(place, size, fd);
        if (poll(&waiting, 1, left_ms) <= 0)
            continue;
        int one = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (one < 0)
            continue;
        int rank = receive_greeting(one, invite, HELLO_MS);
        if (rank < 1 || rank >= size || !send_greeting(one, invite, 0)) {
            close(one);
            continue;
        }
        /* A rank that gave up waiting for the answer has come back: its newest connection counts. */
        if (fd[rank] >= 0)
            close(fd[rank]);
        else
            joined++;
        send_at_once(one);
        fd[rank] = one;
    }
    return 0;
}

/* A connected socket, or -1 with errno set. */
static int connect_within(uint32_t address, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = address};
    int error = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        socklen_t bytes = sizeof error;
        if (poll(&waiting, 1, CONNECT_MS) <= 0)
            error = ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
            error = errno;
    }
    if (error == 0)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

static int join_at(uint32_t address, const rendezvous_invite *invite, int rank)
{
    int fd = connect_within(address, invite->port);
    if (fd < 0)
        return -1;
    if (send_greeting(fd, invite, rank) && receive_greeting(fd, invite, WELCOME_MS) == 0) {
        send_at_once(fd);
        return fd;
    }
    close(fd);
    errno = EPROTO;
    return -1;
}

static int unreachable(const uint32_t *address, uint32_t n, uint16_t port, int error)
{
    char list[RENDEZVOUS_ADDRESSES * 24] = "none";
    size_t used = 0;
    for (uint32_t i = 0; i < n && used < sizeof list; i++) {
        char text[INET_ADDRSTRLEN] = "?";
        inet_ntop(AF_INET, &address[i], text, sizeof text);
        int wrote = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", text);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return error_set(ERROR_COMM, "control channel: cannot reach rank 0 at port %u of any of its addresses (%s): %s",
                     (unsigned)port, list, error == EPROTO ? "another program answers there" : strerror(error));
}

int rendezvous_connect(const rendezvous_invite *invite, int rank, bool same_host)
{
    uint32_t address[RENDEZVOUS_ADDRESSES + 1], n = 0;
    if (same_host)
        address[n++] = htonl(INADDR_LOOPBACK);
    for (uint32_t i = 0; i < invite->n_addresses; i++)
        address[n++] = invite->address[i];

    int error = EADDRNOTAVAIL;
    double deadline = clock_seconds() + OPEN_SECONDS;
    do {
        for (uint32_t i = 0; i < n && clock_seconds() < deadline; i++) {
            int fd = join_at(address[i], invite, rank);
            if (fd >= 0)
                return fd;
            error = errno;
        }
        clock_sleep_us(RETRY_US);
    } while (n > 0 && clock_seconds() < deadline);
    return unreachable(address, n, invite->port, error);
}

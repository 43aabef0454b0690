/* Owns nothing: what differs between the two protocols. Threads: any. */
#include "addresses.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { V4_AT = 12 /* bytes before the IPv4 address in a mapped one */ };

host_address address_from_v4(uint32_t network_order)
{
    host_address address = {.v6.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(&address.v6.s6_addr[V4_AT], &network_order, sizeof network_order);
    return address;
}

static bool is_v4(const host_address *address)
{
    return IN6_IS_ADDR_V4MAPPED(&address->v6);
}

static bool take_address(const struct ifaddrs *i, host_address *address)
{
    if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK))
        return false;
    if (i->ifa_addr->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, i->ifa_addr, sizeof v4);
        *address = address_from_v4(v4.sin_addr.s_addr);
        return true;
    }
    struct sockaddr_in6 v6;
    if (i->ifa_addr->sa_family != AF_INET6)
        return false;
    memcpy(&v6, i->ifa_addr, sizeof v6);
    address->v6 = v6.sin6_addr;
    return !IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr);
}

uint32_t addresses_of_host(host_address *list, uint32_t most)
{
    struct ifaddrs *all = NULL;
    uint32_t n = 0;
    if (getifaddrs(&all) != 0)
        return 0;
    for (const struct ifaddrs *i = all; i && n < most; i = i->ifa_next)
        n += take_address(i, &list[n]);
    freeifaddrs(all);
    return n;
}

static int listen_on(int fd, const struct sockaddr *any, socklen_t bytes, uint16_t *port)
{
    struct sockaddr_in6 bound;
    socklen_t bound_bytes = sizeof bound;
    if (bind(fd, any, bytes) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_bytes) != 0) {
        const int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    *port = ntohs(bound.sin6_port); /* where sockaddr_in has its own */
    return fd;
}

int address_listen(uint16_t *port)
{
    const struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    const struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    int only_v6 = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6) == 0 &&
        (fd = listen_on(fd, (const struct sockaddr *)&any6, sizeof any6, port)) >= 0)
        return fd;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -1 : listen_on(fd, (const struct sockaddr *)&any4, sizeof any4, port);
}

int address_connect(const host_address *to, uint16_t port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = to->v6};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    memcpy(&v4.sin_addr, &to->v6.s6_addr[V4_AT], sizeof v4.sin_addr);
    const struct sockaddr *address = is_v4(to) ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
    const socklen_t bytes = is_v4(to) ? sizeof v4 : sizeof v6;
    const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, address, bytes) == 0 || errno == EINPROGRESS)
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

void address_text(const host_address *address, char text[ADDRESS_TEXT_BYTES])
{
    const bool v4 = is_v4(address);
    if (!inet_ntop(v4 ? AF_INET : AF_INET6, &address->v6.s6_addr[v4 ? V4_AT : 0], text, ADDRESS_TEXT_BYTES))
        text[0] = '\0';
}

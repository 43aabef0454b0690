/* Addresses of hosts, IPv4 and IPv6 alike. */
#ifndef TESKD_DIST_ADDRESSES_H
#define TESKD_DIST_ADDRESSES_H

#include <netinet/in.h>
#include <stdint.h>

/* IPv6 in network byte order; an IPv4 address as "::ffff:a.b.c.d". */
typedef struct {
    struct in6_addr v6;
} host_address;

enum { ADDRESS_TEXT_BYTES = INET6_ADDRSTRLEN };

host_address address_from_v4(uint32_t network_order);

/* This host's addresses that others may reach, at most `most`; returns how many. Loopback is left out, and of IPv6 what
 * holds on one link only. */
uint32_t addresses_of_host(host_address *list, uint32_t most);

/* A non-blocking socket, closed on exec, that listens on a free port of all interfaces, over both protocols where the
 * system has both. -1 with errno. */
int address_listen(uint16_t *port);

/* A socket likewise that is being connected. -1 with errno. */
int address_connect(const host_address *to, uint16_t port);

void address_text(const host_address *address, char text[ADDRESS_TEXT_BYTES]);

#endif

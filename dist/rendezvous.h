/* How the control channel's connections come about: rank 0 invites, the others connect to it over TCP.
 *
 * The invitation is plain bytes, handed to every rank by other means (MPI). Only a connection that shows its token is
 * let in. IPv4 and IPv6, numeric addresses only: nothing depends on name resolution. */
#ifndef TESKD_DIST_RENDEZVOUS_H
#define TESKD_DIST_RENDEZVOUS_H

#include "addresses.h"

#include <stdbool.h>
#include <stdint.h>

enum { RENDEZVOUS_ADDRESSES = 16, RENDEZVOUS_TOKEN_BYTES = 16, HOST_BYTES = 256 };

typedef struct {
    uint8_t token[RENDEZVOUS_TOKEN_BYTES];
    host_address address[RENDEZVOUS_ADDRESSES];
    uint32_t n_addresses;
    uint16_t port; /* host byte order */
} rendezvous_invite;

/* What every rank knows of each rank. */
typedef struct {
    char host[HOST_BYTES];
    int host_leader; /* lowest rank on the same host */
} rank_place;

/* Rank 0: opens a port on all interfaces and fills the invitation. Returns the listening socket or ERROR_COMM. */
int rendezvous_listen(rendezvous_invite *invite);

/* Rank 0: waits until ranks 1 to size-1 have connected; fd[r] becomes rank r's socket, fd[0] -1.
 * ERROR_COMM names the missing ranks after half a minute. The caller closes every fd[r] >= 0 in either case. */
int rendezvous_accept(int listener, const rendezvous_invite *invite, const rank_place *place, int size, int *fd);

/* Other ranks: returns the socket to rank 0, or ERROR_COMM naming the addresses tried. Loopback is tried first when
 * `same_host`. */
int rendezvous_connect(const rendezvous_invite *invite, int rank, bool same_host);

#endif

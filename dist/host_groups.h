/* Who shares a host with whom, for sums that cross the network once per host.
 *
 * A sum of several hosts goes in three moves. Inside each host its ranks divide the elements among them: each adds the
 * host's values of one slice. The owners of the same slice, one on each host, add theirs over the network. Then each
 * host's ranks hand their slices to one another. So each byte leaves a host once, and all ranks of it send.
 *
 * Pure arithmetic on numbers of ranks; any thread. */
#ifndef TESKD_DIST_HOST_GROUPS_H
#define TESKD_DIST_HOST_GROUPS_H

#include <stddef.h>

/* Hosts are numbered by their lowest rank, ranks on a host in their order. */
typedef struct {
    int hosts, per_host;
    int host, place; /* of this rank: its host, its number on it */
    int *rank;       /* rank[host * per_host + place]; owned */
} host_groups;

/* `leader[r]` is the lowest rank on the host of rank r. Where hosts have different numbers of ranks, or one rank each,
 * all ranks are one group: hosts == 1. ERROR_MEMORY. */
int host_groups_make(host_groups *groups, const int *leader, int size, int rank);
void host_groups_free(host_groups *groups);

/* Elements before the slice of number `slice` when `count` are cut in `slices`: as equal as can be, the longer ones
 * first. */
size_t slice_start(size_t count, int slices, int slice);

#endif

/* Owns the table of ranks by host. Invariant: every rank makes the same table. */
#include "host_groups.h"

#include "base/error.h"

#include <stdlib.h>

static int ranks_of(const int *leader, int size, int host)
{
    int n = 0;
    for (int r = 0; r < size; r++)
        n += leader[r] == host;
    return n;
}

/* 0: hosts have different numbers of ranks. */
static int equal_ranks_per_host(const int *leader, int size)
{
    const int first = ranks_of(leader, size, leader[0]);
    for (int r = 0; r < size; r++)
        if (leader[r] == r && ranks_of(leader, size, r) != first)
            return 0;
    return first;
}

static void put_host(host_groups *groups, const int *leader, int size, int rank, int host)
{
    int place = 0;
    for (int r = 0; r < size; r++) {
        if (leader[r] != leader[host])
            continue;
        if (r == rank) {
            groups->host = groups->hosts;
            groups->place = place;
        }
        groups->rank[groups->hosts * groups->per_host + place++] = r;
    }
    groups->hosts++;
}

static void put_all(host_groups *groups, int size, int rank)
{
    *groups = (host_groups){.hosts = 1, .per_host = size, .place = rank, .rank = groups->rank};
    for (int r = 0; r < size; r++)
        groups->rank[r] = r;
}

int host_groups_make(host_groups *groups, const int *leader, int size, int rank)
{
    *groups = (host_groups){.per_host = equal_ranks_per_host(leader, size)};
    groups->rank = malloc((size_t)size * sizeof *groups->rank);
    CHECK(groups->rank, ERROR_MEMORY, "out of memory for a table of %d ranks", size);
    if (groups->per_host <= 1) {
        put_all(groups, size, rank);
        return 0;
    }
    for (int r = 0; r < size; r++)
        if (leader[r] == r)
            put_host(groups, leader, size, rank, r);
    return 0;
}

void host_groups_free(host_groups *groups)
{
    free(groups->rank);
    *groups = (host_groups){.rank = NULL};
}

size_t slice_start(size_t count, int slices, int slice)
{
    const size_t n = (size_t)slices, at = (size_t)slice, longer = count % n;
    return count / n * at + (at < longer ? at : longer);
}

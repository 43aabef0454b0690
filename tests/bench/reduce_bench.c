/* Owns the measurement of sums over the ranks: mpirun -np N reduce_bench [REPEATS] prints, for each size from 4 KiB to
 * 64 MiB, the fastest and the median time of one all-reduce in float32, as a bucket's over MPI. What else the machine
 * does only adds to a time, so the fastest is the machine's own. */
#include "base/clock.h"
#include "base/error.h"
#include "dist/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST = 1 << 12, MOST = 1 << 26, REPEATS_MOST = 10000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int time_size(comm *ranks, void *data, size_t bytes, double *seconds, int repeats)
{
    TRY(comm_all_reduce(ranks, data, bytes / sizeof(float), COMM_F32));
    for (int i = 0; i < repeats; i++) {
        TRY(comm_barrier(ranks));
        const double begin = clock_seconds();
        TRY(comm_all_reduce(ranks, data, bytes / sizeof(float), COMM_F32));
        seconds[i] = clock_seconds() - begin;
    }
    qsort(seconds, (size_t)repeats, sizeof *seconds, by_value);
    return 0;
}

static int time_all(comm *ranks, void *data, double *seconds, int repeats)
{
    const comm_info *info = comm_describe(ranks);
    if (info->rank == 0)
        printf("%d ranks, %d on %s, %s; %d repeats\n%12s %12s %12s %12s\n", info->size, info->local_size, info->host,
               info->library, repeats, "bytes", "fastest ms", "median ms", "GB/s");
    for (size_t bytes = LEAST; bytes <= MOST; bytes *= 4) {
        TRY(time_size(ranks, data, bytes, seconds, repeats));
        if (info->rank == 0)
            printf("%12zu %12.4f %12.4f %12.3f\n", bytes, 1e3 * seconds[0], 1e3 * seconds[repeats / 2],
                   2e-9 * (info->size - 1) / info->size * (double)bytes / seconds[0]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const int repeats = argc > 1 ? atoi(argv[1]) : 20;
    comm *ranks = NULL;
    if (repeats < 1 || repeats > REPEATS_MOST) {
        fprintf(stderr, "reduce_bench: expected 1 to %d repeats\n", REPEATS_MOST);
        return 2;
    }
    void *data = calloc(1, MOST);
    double *seconds = calloc((size_t)repeats, sizeof *seconds);
    int status = data && seconds ? comm_open(&ranks, NULL) : error_set(ERROR_MEMORY, "no memory");
    if (status == 0)
        status = time_all(ranks, data, seconds, repeats);
    if (status < 0)
        fprintf(stderr, "reduce_bench: %s\n", error_message());
    else
        comm_close(ranks);
    free(data);
    free(seconds);
    return status < 0;
}

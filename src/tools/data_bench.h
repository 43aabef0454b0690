/* Times the way of stored images into batches, on the cores of this process. */
#ifndef TESKD_TOOLS_DATA_BENCH_H
#define TESKD_TOOLS_DATA_BENCH_H

#include "base/log.h"
#include "base/settings.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t images_per_second; /* for which the cores are counted */
    bool json;                 /* one line of JSON: the same numbers */
} data_bench_options;

/* Training images of data.path, read where they are and cropped at random to the last data.image_size: what one thread
 * can do step by step, then the loader with 1, 2, 4 ... up to data.threads threads (0: as many as cores). Takes about
 * two seconds for each. One process; ERROR_SETTINGS for a kind of data whose images are not stored compressed. */
int bench_data(const settings *config, const data_bench_options *options, logger *log);

#endif

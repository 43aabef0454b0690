/* What NVIDIA's management library (NVML) says of a host's GPUs. It is opened at run time, and comes with the driver.
 */
#ifndef TESKD_TOOLS_PREFLIGHT_NVML_H
#define TESKD_TOOLS_PREFLIGHT_NVML_H

#include <stdbool.h>

enum { NVML_NAME_BYTES = 96, NVML_MOST_GPUS = 64 };

/* What a GPU does not tell is 0. */
typedef struct {
    char name[NVML_NAME_BYTES];
    double gib;                       /* of memory */
    unsigned clock, highest_clock;    /* of the multiprocessors, MHz */
    unsigned memory_clock;            /* MHz */
    unsigned temperature;             /* degrees Celsius */
    bool has_ecc;                     /* memory errors are corrected */
    unsigned long long memory_errors; /* that could not be corrected since the driver was loaded */
    bool is_hot, is_slowed,
        is_capped; /* slowed down by heat; by the hardware or its power supply; by the power limit */
} nvml_gpu;

/* Fills in `gpus` and `about`: "driver 570.86", or why there are no GPUs to be seen. Returns how many there are.
 * ERROR_KERNEL where one does not answer. One thread at a time. */
int nvml_read(nvml_gpu gpus[NVML_MOST_GPUS], char about[NVML_NAME_BYTES]);

#endif

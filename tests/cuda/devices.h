/* Descriptions of GPUs that are not there, as cuDNN reads them. */
#ifndef TESKD_TESTS_CUDA_DEVICES_H
#define TESKD_TESTS_CUDA_DEVICES_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    int sm; /* compute capability: 90 is 9.0 */
    const char *name;
    bool bfloat16;
    int multiprocessors, blocks, threads; /* the last two of a multiprocessor */
    int shared_bytes;                     /* most that a block can have */
    int l2_mib, memory_gib;
    int clock_mhz, memory_clock_mhz;
} described_gpu;

extern const described_gpu described_gpus[];
extern const int described_gpu_count;

enum { GPU_JSON_BYTES = 1024 };
void described_gpu_json(const described_gpu *gpu, char json[GPU_JSON_BYTES]);

#endif
